"""The state that the threads of one worker process share."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis import Redis

from model.engines.joint import JointPredictor
from model.engines.network import NetworkPredictor
from model.predictor import Predictor
from tests.worker.jobs.ledger.test_store import claim, recover_until_due, submit
from tests.worker.registry import add_version
from worker.jobs.ledger.store import JobStore
from worker.jobs.settings import Settings, load_settings
from worker.scoring.metrics import TimedPredictor
from worker.scoring.runtime import Runtime


def test_models_with_one_backbone_share_it_alone_and_together(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIQUEUE_REDIS_URL", redis_url)
    monkeypatch.setenv("PIQUEUE_REGISTRY_URL", str(tmp_path))
    monkeypatch.setenv("PIQUEUE_THREADS", "1")
    monkeypatch.setenv("PIQUEUE_MODEL_VARIANT", "float")
    add_version(tmp_path, "1", name="coasts")
    runtime = Runtime(load_settings())
    scenes, both, three = map(
        runtime.catalog.resolve, ("scenes", "scenes+coasts", "scenes+coasts+imagenet")
    )
    sizes = {one.name: runtime.catalog.resolve(one.name).memory_bytes for one in three.parts}
    runtime.models.prepare(both.ref)
    runtime.models.prepare(three.ref)
    warm = runtime.models.warm
    assert warm.keys() == {scenes.ref, both.ref, three.ref}
    parts = [part for ref in (both.ref, three.ref) for part in joined_parts(warm[ref])]
    shared = [part.network for part in (network_predictor(warm[scenes.ref]), *parts)]
    assert len(set(map(id, shared))) == 2, "of scenes, and of imagenet"
    assert runtime._memory_bytes(both.ref) == sizes["scenes"]
    assert runtime._memory_bytes(three.ref) == sizes["scenes"] + sizes["imagenet"]
    runtime.close()


def test_models_with_one_backbone_run_a_variant_that_all_of_them_have(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIQUEUE_REDIS_URL", redis_url)
    monkeypatch.setenv("PIQUEUE_REGISTRY_URL", str(tmp_path))
    monkeypatch.setenv("PIQUEUE_THREADS", "1")
    monkeypatch.setenv("PIQUEUE_MODEL_VARIANT", "int8")
    add_version(tmp_path, "1", name="coasts")
    runtime = Runtime(load_settings())
    scenes, both = map(runtime.catalog.resolve, ("scenes", "scenes+coasts"))
    runtime.models.prepare(scenes.ref)
    runtime.models.prepare(both.ref)
    warm = runtime.models.warm
    assert (warm[scenes.ref].variant, warm[both.ref].variant) == ("int8", "float")
    first, second = joined_parts(warm[both.ref])
    assert first.network is second.network is not network_predictor(warm[scenes.ref]).network
    runtime.close()


def network_predictor(timed: Predictor) -> NetworkPredictor:
    assert isinstance(timed, TimedPredictor)
    assert isinstance(timed._predictor, NetworkPredictor)
    return timed._predictor


def joined_parts(timed: Predictor) -> Sequence[NetworkPredictor]:
    assert isinstance(timed, TimedPredictor)
    assert isinstance(timed._predictor, JointPredictor)
    return timed._predictor._parts


def test_a_process_keeps_the_newer_of_two_leases_of_a_chunk(
    redis_client: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was frozen loses a lease, and may claim the same chunk before it notices."""
    monkeypatch.setenv("PIQUEUE_REDIS_URL", redis_url)
    runtime, store = Runtime(Settings()), JobStore(redis_client)
    job_id, _ = submit(store, total=10)
    lost = claim(store, job_id, 0, lease_s=0.001)
    recover_until_due(store)
    with ExitStack() as kept:
        with runtime.keep_lease(lost):
            newer = claim(store, job_id, 0)
            kept.enter_context(runtime.keep_lease(newer))
        assert [chunk.claim for chunk in runtime.claimed.values()] == [newer]
    assert not runtime.claimed
    runtime.close()
