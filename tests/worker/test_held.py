"""The models a worker holds: how many, which makes room, and what others do meanwhile."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from tests.scripts.processes import eventually
from worker.held import CannotLoad, HeldModels
from worker.jobs.errors import StorageUnavailable
from worker.jobs.record import ModelRef

A, B, C = (ModelRef(name, "1", name * 64) for name in "abc")


class Loader:
    """Gives an object a model and counts; a model may be held up, or refused."""

    def __init__(self) -> None:
        self.loads: Counter[str] = Counter()
        self.errors: dict[str, Exception] = {}
        self.held_up: dict[str, threading.Event] = {}

    def __call__(self, model: ModelRef) -> Any:
        self.loads[model.name] += 1
        if event := self.held_up.get(model.name):
            assert event.wait(60)
        if error := self.errors.get(model.name):
            raise error
        return f"predictor of {model.name}"


@pytest.fixture
def loader() -> Iterator[Loader]:
    loader = Loader()
    yield loader
    for event in loader.held_up.values():
        event.set()


def use(models: HeldModels, *which: ModelRef) -> list[Any]:
    used = []
    for model in which:
        with models.using(model) as predictor:
            used.append(predictor)
    return used


def test_each_model_is_loaded_once_and_each_caller_gets_its_own(loader: Loader) -> None:
    models = HeldModels(loader, most=2)
    assert use(models, A, B, A, B) == [f"predictor of {name}" for name in "abab"]
    assert loader.loads == {"a": 1, "b": 1}
    assert {model.name for model in models.warm} == {"a", "b"}


def test_many_callers_at_once_cause_one_load(loader: Loader) -> None:
    models = HeldModels(loader, most=2)
    with ThreadPoolExecutor(8) as threads:
        used = list(threads.map(lambda _: use(models, A)[0], range(40)))
    assert used == ["predictor of a"] * 40
    assert loader.loads == {"a": 1}


def test_the_model_used_longest_ago_makes_room(loader: Loader) -> None:
    models = HeldModels(loader, most=2)
    use(models, A, B, A, C)
    assert {model.name for model in models.warm} == {"a", "c"}
    use(models, B)
    assert loader.loads["b"] == 2


def test_a_model_in_use_is_never_put_away(loader: Loader) -> None:
    models = HeldModels(loader, most=1)
    done = threading.Event()
    with ThreadPoolExecutor(1) as threads, ExitStack() as using:
        using.enter_context(models.using(A))
        waiting = threads.submit(use, models, B)
        waiting.add_done_callback(lambda _: done.set())
        assert not done.wait(0.1)
        assert loader.loads == {"a": 1}
        using.close()
        waiting.result(60)
    assert [model.name for model in models.warm] == ["b"]


def test_who_waits_for_room_is_not_passed_by_those_who_come_later(loader: Loader) -> None:
    models = HeldModels(loader, most=1)
    with ThreadPoolExecutor(2) as threads, ExitStack() as using:
        using.enter_context(models.using(A))
        waiting = threads.submit(use, models, B)
        assert eventually(models._door.locked)
        later = threads.submit(use, models, A)
        assert not later.done()
        using.close()
        assert waiting.result(60) == ["predictor of b"]
        assert later.result(60) == ["predictor of a"]
    assert loader.loads == {"a": 2, "b": 1}


def test_others_go_on_while_a_model_is_loaded(loader: Loader) -> None:
    models = HeldModels(loader, most=2)
    use(models, A)
    loader.held_up["b"] = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        loading = threads.submit(use, models, B)
        assert eventually(lambda: loader.loads["b"] == 1)
        assert use(models, A) == ["predictor of a"]
        assert [model.name for model in models.warm] == ["a"]
        loader.held_up["b"].set()
        assert loading.result(60) == ["predictor of b"]


def test_a_model_that_cannot_be_loaded_is_told_and_takes_no_room(loader: Loader) -> None:
    models = HeldModels(loader, most=1)
    use(models, A)
    loader.errors["b"] = CannotLoad("its file is cut short")
    for _ in range(3):
        with pytest.raises(CannotLoad, match="cut short"):
            use(models, B)
    assert loader.loads["b"] == 1, "it was tried a moment ago"
    assert models.unable == [B.key]
    assert use(models, C) == ["predictor of c"]


def test_storage_that_is_away_says_nothing_against_the_model(loader: Loader) -> None:
    models = HeldModels(loader, most=1)
    loader.errors["a"] = StorageUnavailable("S3 does not answer")
    with pytest.raises(StorageUnavailable):
        use(models, A)
    assert models.unable == []
    del loader.errors["a"]
    assert use(models, A) == ["predictor of a"]


def test_what_may_be_used_soon_takes_no_room_from_what_was_used_just_now(loader: Loader) -> None:
    models = HeldModels(loader, most=2)
    use(models, A)
    models.prepare(B)
    assert loader.loads == {"a": 1, "b": 1}
    models.prepare(C)
    assert loader.loads["c"] == 0
