"""What a run keeps on disk, and when it forgets."""

from pathlib import Path

import numpy as np

from model.training.checkpoints import Checkpoints, in_order, numbered


def test_arrays_come_back_as_they_were_kept(tmp_path: Path) -> None:
    values = [np.arange(number + 1, dtype=np.float32) for number in range(12)]
    Checkpoints(tmp_path / "run", "same").save("fold-0", scores=np.eye(2), **numbered(values))
    kept = Checkpoints(tmp_path / "run", "same").load("fold-0")
    assert kept is not None
    assert np.array_equal(kept["scores"], np.eye(2))
    for one, other in zip(in_order(kept), values, strict=True):
        assert np.array_equal(one, other)


def test_what_was_not_kept_is_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "run", "same").load("fold-0") is None


def test_a_later_save_takes_the_place_of_the_first(tmp_path: Path) -> None:
    memory = Checkpoints(tmp_path / "run", "same")
    memory.save("epoch", number=np.array(1))
    memory.save("epoch", number=np.array(2))
    assert memory.load("epoch") == {"number": np.array(2)}


def test_another_run_finds_nothing_of_the_first(tmp_path: Path) -> None:
    Checkpoints(tmp_path / "run", "one").save("epoch", number=np.array(1))
    assert Checkpoints(tmp_path / "run", "other").load("epoch") is None
    assert Checkpoints(tmp_path / "run", "one").load("epoch") is None


def test_a_write_that_was_cut_off_was_never_kept(tmp_path: Path) -> None:
    memory = Checkpoints(tmp_path / "run", "same")
    memory.save("epoch", number=np.array(1))
    whole = (tmp_path / "run/epoch.npz").read_bytes()
    (tmp_path / "run/epoch.part").write_bytes(whole[: len(whole) // 2])
    assert Checkpoints(tmp_path / "run", "same").load("epoch") == {"number": np.array(1)}


def test_a_run_that_has_ended_leaves_nothing(tmp_path: Path) -> None:
    memory = Checkpoints(tmp_path / "run", "same")
    memory.save("epoch", number=np.array(1))
    memory.forget()
    assert not (tmp_path / "run").exists()
