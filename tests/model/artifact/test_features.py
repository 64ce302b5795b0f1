"""Features as bytes."""

import numpy as np

from model.artifact.features import pack_features, unpack_features


def test_features_change_by_half_a_step_at_most() -> None:
    random = np.random.default_rng(1)
    features = (random.random((7, 1280)) * random.random((7, 1)) * 6 - 1).astype(np.float32)
    packed = [pack_features(row) for row in features]
    assert {len(one) for one in packed} == {1288}
    steps = (features.max(axis=1) - features.min(axis=1)) / 255
    error = np.abs(unpack_features(packed) - features).max(axis=1)
    assert (error <= steps / 2 + 1e-6).all()
    assert error.max() > steps.min() / 4


def test_equal_features_are_read_back_exactly() -> None:
    features = np.full((1, 5), 2.5, np.float32)
    np.testing.assert_array_equal(unpack_features([pack_features(features[0])]), features)
