"""The comparison of pictures in a process of its own."""

import hashlib
from collections.abc import Iterator

import numpy as np
import pytest

from model.artifact.features import pack_features
from model.artifact.subprocess_module import ModuleFailed
from model.compare import Comparison, Picture, compare

WIDTH = 64


def picture(number: int, content: int, noise: float = 0.0, difference_hash: int = 0) -> Picture:
    """A picture whose features are those of `content`, and a little noise."""
    features = np.random.default_rng(content).random(WIDTH, np.float32)
    features += noise * np.random.default_rng(number).random(WIDTH, np.float32)
    digest = hashlib.sha256(f"{content} {noise}".encode()).digest()
    return Picture(number, digest, pack_features(features), bytes([difference_hash] * 8))


def compared(*pictures: Picture) -> Comparison:
    found = compare(pictures)
    assert found is not None
    return found


def test_copies_come_first_and_near_duplicates_are_a_group() -> None:
    found = compared(
        picture(3, 1), picture(7, 2), picture(8, 1, 0.05), picture(11, 1), picture(20, 4)
    )
    assert found.numbers.tolist() == [3, 7, 8, 11, 20]
    assert found.groups.tolist() == [3, 7, 3, 3, 20]
    assert found.neighbours[0, :2].tolist() == [11, 8]
    assert found.neighbours[3, :2].tolist() == [3, 8]
    assert found.similarity[0, 0] == 1
    assert 0.99 < found.similarity[0, 1] < 1
    # A copy is listed once among the neighbours of others.
    of_other = [one for one in found.neighbours[1].tolist() if one >= 0]
    assert sorted(of_other) in ([3, 8, 20], [8, 11, 20])


def test_pictures_that_only_look_alike_to_the_network_are_no_near_duplicates() -> None:
    found = compared(picture(0, 1), picture(1, 1, 0.05, difference_hash=0xFF))
    assert found.groups.tolist() == [0, 1]
    assert found.neighbours[0, 0] == 1


def test_pictures_without_a_hash_are_in_no_group() -> None:
    old = picture(1, 1, 0.05)
    found = compared(picture(0, 1), Picture(1, old.sha256, old.features, b""))
    assert found.groups.tolist() == [0, 1]
    assert found.neighbours[0, 0] == 1


def test_without_pictures_there_is_nothing() -> None:
    assert compare([]) is None


def test_a_comparison_that_fails_says_so() -> None:
    wrong = Picture(0, b"x" * 31, b"\0" * 20, b"")
    with pytest.raises(ModuleFailed, match="ended with code"):
        compare([wrong])


def test_an_error_of_the_source_ends_the_process() -> None:
    def broken() -> Iterator[Picture]:
        yield picture(0, 1)
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        compare(broken())
