"""What a run stores on disk, and when it is deleted."""

from pathlib import Path

import numpy as np

from model.training.checkpoints import Checkpoints, in_order


def test_arrays_are_loaded_as_they_were_saved(tmp_path: Path) -> None:
    values = [np.arange(number + 1, dtype=np.float32) for number in range(12)]
    Checkpoints(tmp_path / "run", "same").save("fold-0", *values, scores=np.eye(2))
    saved = Checkpoints(tmp_path / "run", "same").load("fold-0")
    assert saved is not None
    assert np.array_equal(saved["scores"], np.eye(2))
    for one, other in zip(in_order(saved), values, strict=True):
        assert np.array_equal(one, other)


def test_what_was_not_saved_is_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "run", "same").load("fold-0") is None


def test_a_later_save_replaces_the_first(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "run", "same")
    checkpoints.save("epoch", number=np.array(1))
    checkpoints.save("epoch", number=np.array(2))
    assert checkpoints.load("epoch") == {"number": np.array(2)}


def test_another_run_deletes_what_the_first_saved(tmp_path: Path) -> None:
    Checkpoints(tmp_path / "run", "one").save("epoch", number=np.array(1))
    assert Checkpoints(tmp_path / "run", "other").load("epoch") is None
    assert Checkpoints(tmp_path / "run", "one").load("epoch") is None


def test_an_interrupted_write_leaves_the_earlier_arrays(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "run", "same")
    checkpoints.save("epoch", number=np.array(1))
    whole = (tmp_path / "run/epoch.npz").read_bytes()
    (tmp_path / "run/epoch.part").write_bytes(whole[: len(whole) // 2])
    assert Checkpoints(tmp_path / "run", "same").load("epoch") == {"number": np.array(1)}


def test_deleting_leaves_nothing(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "run", "same")
    checkpoints.save("epoch", number=np.array(1))
    checkpoints.delete()
    assert not (tmp_path / "run").exists()
