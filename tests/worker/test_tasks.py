"""The threads of Celery in a worker."""

from collections.abc import Callable, Iterator

import pytest
from kombu.asynchronous import Hub, get_event_loop, set_event_loop

from worker.tasks import Threads


@pytest.fixture
def hub() -> Iterator[Hub]:
    """Give a loop, which is the current one in the test."""
    before, hub = get_event_loop(), Hub()
    set_event_loop(hub)
    yield hub
    set_event_loop(before)
    hub.close()


def test_the_loop_goes_round_once_celery_has_counted_the_end_of_a_task(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[object] = []

    def call_soon(callback: Callable[[], None]) -> None:
        callback()
        events.append("round")

    monkeypatch.setattr(hub, "call_soon", call_soon)
    pool = Threads(1)
    pool.start()
    pool.apply_async(lambda: "scored", callback=events.append)
    pool.stop()
    assert events == ["scored", "round"]
