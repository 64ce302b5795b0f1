"""The model pool: how many models are warm, which are evicted, and what blocks whom."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from tests.scripts.processes import eventually
from worker.jobs.errors import StorageUnavailable
from worker.jobs.record import ModelRef
from worker.scoring.model_pool import CannotLoad, ModelPool

A, B, C, LARGE = (ModelRef(name, "1", name * 64) for name in ("a", "b", "c", "large"))
# The memory of a model, unless it is the large one.
ONE = 20_000_000


def memory_of(model: ModelRef) -> int:
    return 3 * ONE if model == LARGE else ONE


def pool_of(loader: "Loader", most: int) -> ModelPool:
    """Create a pool for `most` models of the usual size."""
    return ModelPool(loader, memory_of, most * ONE)


class Loader:
    """Loads a string for each model and counts loads; a load can be blocked, or fail."""

    def __init__(self) -> None:
        self.loads: Counter[str] = Counter()
        self.errors: dict[str, Exception] = {}
        self.blocked: dict[str, threading.Event] = {}

    def __call__(self, model: ModelRef) -> Any:
        self.loads[model.name] += 1
        if event := self.blocked.get(model.name):
            assert event.wait(60)
        if error := self.errors.get(model.name):
            raise error
        return f"predictor of {model.name}"


@pytest.fixture
def loader() -> Iterator[Loader]:
    loader = Loader()
    yield loader
    for event in loader.blocked.values():
        event.set()


def use(models: ModelPool, *which: ModelRef) -> list[Any]:
    used = []
    for model in which:
        with models.using(model) as predictor:
            used.append(predictor)
    return used


def test_each_model_is_loaded_once_and_each_caller_gets_the_right_one(loader: Loader) -> None:
    models = pool_of(loader, most=2)
    assert use(models, A, B, A, B) == [f"predictor of {name}" for name in "abab"]
    assert loader.loads == {"a": 1, "b": 1}
    assert {model.name for model in models.warm} == {"a", "b"}


def test_many_callers_at_once_cause_one_load(loader: Loader) -> None:
    models = pool_of(loader, most=2)
    with ThreadPoolExecutor(8) as threads:
        used = list(threads.map(lambda _: use(models, A)[0], range(40)))
    assert used == ["predictor of a"] * 40
    assert loader.loads == {"a": 1}


def test_the_least_recently_used_model_is_evicted(loader: Loader) -> None:
    models = pool_of(loader, most=2)
    use(models, A, B, A, C)
    assert {model.name for model in models.warm} == {"a", "c"}
    use(models, B)
    assert loader.loads["b"] == 2


def test_a_model_in_use_is_never_evicted(loader: Loader) -> None:
    models = pool_of(loader, most=1)
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


def test_a_caller_that_waits_for_memory_is_not_overtaken(loader: Loader) -> None:
    models = pool_of(loader, most=1)
    with ThreadPoolExecutor(2) as threads, ExitStack() as using:
        using.enter_context(models.using(A))
        waiting = threads.submit(use, models, B)
        assert eventually(models._acquiring.locked)
        later = threads.submit(use, models, A)
        assert not later.done()
        using.close()
        assert waiting.result(60) == ["predictor of b"]
        assert later.result(60) == ["predictor of a"]
    assert loader.loads == {"a": 2, "b": 1}


def test_loading_a_model_blocks_no_other(loader: Loader) -> None:
    models = pool_of(loader, most=2)
    use(models, A)
    loader.blocked["b"] = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        loading = threads.submit(use, models, B)
        assert eventually(lambda: loader.loads["b"] == 1)
        assert use(models, A) == ["predictor of a"]
        assert [model.name for model in models.warm] == ["a"]
        loader.blocked["b"].set()
        assert loading.result(60) == ["predictor of b"]


def test_a_model_that_cannot_be_loaded_is_reported_and_takes_no_memory(loader: Loader) -> None:
    models = pool_of(loader, most=1)
    use(models, A)
    loader.errors["b"] = CannotLoad("its file is truncated")
    for _ in range(3):
        with pytest.raises(CannotLoad, match="truncated"):
            use(models, B)
    assert loader.loads["b"] == 1, "it was tried a moment ago"
    assert models.unable == [B.key]
    assert use(models, C) == ["predictor of c"]


def test_unavailable_storage_does_not_make_a_model_unable(loader: Loader) -> None:
    models = pool_of(loader, most=1)
    loader.errors["a"] = StorageUnavailable("S3 does not answer")
    with pytest.raises(StorageUnavailable):
        use(models, A)
    assert models.unable == []
    del loader.errors["a"]
    assert use(models, A) == ["predictor of a"]


def test_preparing_a_model_evicts_no_recently_used_one(loader: Loader) -> None:
    models = pool_of(loader, most=2)
    use(models, A)
    models.prepare(B)
    assert loader.loads == {"a": 1, "b": 1}
    models.prepare(C)
    assert loader.loads["c"] == 0


def test_several_models_are_evicted_for_a_large_one(loader: Loader) -> None:
    models = pool_of(loader, most=4)
    use(models, A, B, C, A, LARGE)
    assert {model.name for model in models.warm} == {"a", "large"}
    use(models, B)
    assert {model.name for model in models.warm} == {"large", "b"}


def test_a_large_model_waits_for_models_in_use_whose_memory_it_needs(loader: Loader) -> None:
    models = pool_of(loader, most=4)
    done = threading.Event()
    with ThreadPoolExecutor(1) as threads, ExitStack() as using_a, ExitStack() as using_b:
        using_a.enter_context(models.using(A))
        using_b.enter_context(models.using(B))
        use(models, C)
        waiting = threads.submit(use, models, LARGE)
        waiting.add_done_callback(lambda _: done.set())
        assert not done.wait(0.1)
        assert loader.loads["large"] == 0
        using_b.close()
        assert waiting.result(60) == ["predictor of large"]
        assert {model.name for model in models.warm} == {"a", "large"}


def test_a_model_larger_than_the_total_is_refused(loader: Loader) -> None:
    models = ModelPool(loader, memory_of, total_bytes=2 * ONE)
    use(models, A, B)
    reason = (
        "large@1 takes 60000000 bytes, and all models together may take 40000000: "
        "raise PIQUEUE_MODELS_MEMORY_BYTES, or lower PIQUEUE_THREADS"
    )
    for ask in (lambda: use(models, LARGE), lambda: models.prepare(LARGE)):
        with pytest.raises(CannotLoad) as refused:
            ask()
        assert str(refused.value) == reason
    assert models.unable == [LARGE.key]
    assert {model.name for model in models.warm} == {"a", "b"}, "no model is evicted for it"


def test_asking_for_the_memory_of_a_model_blocks_no_other(loader: Loader) -> None:
    asked, answer = threading.Event(), threading.Event()

    def memory_of_b_late(model: ModelRef) -> int:
        if model == B:
            asked.set()
            assert answer.wait(60)
        return ONE

    models = ModelPool(loader, memory_of_b_late, total_bytes=2 * ONE)
    use(models, A)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(use, models, B)
        try:
            assert asked.wait(60)
            assert use(models, A, C) == ["predictor of a", "predictor of c"]
        finally:
            answer.set()
        assert waiting.result(60) == ["predictor of b"]


def test_an_unknown_model_is_reported_like_one_that_cannot_be_loaded(loader: Loader) -> None:
    def memory_of_none(_model: ModelRef) -> int:
        raise CannotLoad("a@1 is not here")

    models = ModelPool(loader, memory_of_none, total_bytes=ONE)
    with pytest.raises(CannotLoad, match="not here"):
        use(models, A)
    assert (models.unable, loader.loads["a"]) == ([A.key], 0)


def test_preparing_a_model_may_evict_idle_ones(
    loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = pool_of(loader, most=4)
    use(models, A, B)
    models.prepare(LARGE)
    assert loader.loads["large"] == 0
    monkeypatch.setattr("worker.scoring.model_pool.IDLE_S", -1.0)
    with models.using(B):
        models.prepare(LARGE)
        assert {model.name for model in models.warm} == {"b", "large"}
