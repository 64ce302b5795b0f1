"""The index of similar pictures: what it finds, also with cells and with many copies."""

import numpy as np
import pytest
from numpy.typing import NDArray

from model import neighbours
from model.neighbours import Neighbours, Projection, find_neighbours, near_duplicates

Features = NDArray[np.float32]


def clustered(count: int, clusters: int, width: int = 64, spread: float = 0.3) -> Features:
    random = np.random.default_rng(7)
    middles = random.standard_normal((clusters, width))
    near = spread * random.standard_normal((count, width))
    return (middles[np.arange(count) % clusters] + near).astype(np.float32)


def nearest(features: Features, count: int) -> NDArray[np.intp]:
    """The nearest rows by the cosine of all pairs."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -2)
    return np.argsort(-similarity, axis=1)[:, :count]


def found_share(found: Neighbours, expected: NDArray[np.intp]) -> float:
    pairs = zip(found.index, expected, strict=True)
    return float(np.mean([len(set(one) & set(other)) / len(other) for one, other in pairs]))


def test_a_projection_keeps_cosines() -> None:
    features = np.abs(clustered(400, 40, width=1280))
    rows = Projection(1280)(features).astype(np.float32)
    assert rows.shape == (400, neighbours.PROJECTED)
    first, second = (
        each / np.linalg.norm(each, axis=1, keepdims=True) for each in (features, rows)
    )
    difference = first @ first.T - second @ second.T
    assert np.sqrt((difference**2).mean()) < 0.05


def test_few_pictures_are_all_compared_and_the_nearest_come_first() -> None:
    features = clustered(300, 30)
    found = find_neighbours(Projection(64)(features), count=5)
    assert found_share(found, nearest(features, 5)) > 0.95
    assert (np.diff(found.similarity, axis=1) <= 0).all()
    assert not (found.index == np.arange(300)[:, None]).any()


def test_of_many_pictures_those_of_the_nearest_cells_are_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(neighbours, "_ONE_CELL", 100)
    features = clustered(3000, 300)
    found = find_neighbours(Projection(64)(features), count=5)
    assert found_share(found, nearest(features, 5)) > 0.95


def test_a_picture_without_enough_others_has_fewer_neighbours() -> None:
    found = find_neighbours(Projection(64)(clustered(3, 3)), count=5)
    assert ((found.index >= 0).sum(axis=1) == 2).all()
    assert (found.index[:, 2:] == -1).all()


def test_pictures_that_are_all_alike_do_not_make_one_large_cell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(neighbours, "_ONE_CELL", 100)
    rows = Projection(64)(clustered(2000, 1, spread=0.001))
    cells = neighbours._cells(rows)
    most = neighbours._LARGEST_CELL * 2000 / round(2000**0.5)
    assert max(len(members) for members, _ in cells) <= most
    assert sorted(np.concatenate([members for members, _ in cells])) == list(range(2000))
    found = find_neighbours(rows, count=5)
    assert (found.similarity > 0.99).all()


def test_near_duplicates_need_features_and_hashes_that_agree() -> None:
    none = [-1, -1]
    index = np.array([[1, 2], [0, 2], [1, 0], [4, -1], [3, -1], none], np.int32)
    alike, likely, other = 0.95, 0.9, 0.5
    similarity = np.array(
        [[alike, other], [alike, alike], [alike, other], [likely, -1], [likely, -1], none],
        np.float32,
    )
    hashes = np.zeros((6, 8), np.uint8)
    assert near_duplicates(Neighbours(index, similarity), hashes).tolist() == [0, 0, 0, 3, 3, 5]
    hashes[4] = 0b00000011  # 16 bits: 0.87 + 16 * 0.003 are more than 0.9
    hashes[2] = 0b00001111
    assert near_duplicates(Neighbours(index, similarity), hashes).tolist() == [0, 0, 2, 3, 4, 5]
