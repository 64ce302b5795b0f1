"""Several models at once: the scores of each, and one pass through a backbone that they share."""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from model.artifact.card import ArtifactInvalid, describe_file, load_card, write_card
from model.artifact.head import Head
from model.engines.joint import JointPredictor
from model.engines.network import NetworkPredictor, SharedNetworks
from model.engines.prediction import Features
from model.predictor import load_predictor
from tests.model.colours import (
    LABELS,
    add_int8_apart,
    calculated,
    pictures,
    write_colours,
    write_colours_apart,
    write_head,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model with a head, another one on the same backbone, and a whole network."""
    root = tmp_path_factory.mktemp("artifacts")
    found = {name: root / name / "1" for name in ("plain", "steep", "whole")}
    write_colours_apart(found["plain"])
    write_head(found["steep"], found["plain"], 2.0, ("red", "green"))
    write_colours(found["whole"])
    return found


def interpreters() -> int:
    gc.collect()  # those of earlier tests, which would end at any time
    return sum(isinstance(thing, Interpreter) for thing in gc.get_objects())


def counted(predictor: NetworkPredictor, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The images of each pass through the network of a predictor from now on."""
    passes: list[int] = []
    run: Callable[..., Any] = predictor.network.run

    def counting(images: Any) -> Any:
        passes.append(len(images))
        return run(images)

    monkeypatch.setattr(predictor.network, "run", counting)
    return passes


def test_a_backbone_runs_once_for_all_its_models(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = interpreters()
    networks = SharedNetworks()
    parts = [
        load_predictor(folders[name], "litert", networks=networks)
        for name in ("plain", "whole", "steep")
    ]
    assert parts[0].network is parts[2].network is not parts[1].network
    assert interpreters() == before + 2
    joint = JointPredictor(parts)
    passes = counted(parts[0], monkeypatch)
    images = pictures(7)
    scores = np.array([one.scores for one in joint.predict(list(images))])
    assert passes == [7]
    expected = np.hstack([calculated(images), calculated(images), calculated(images, 2.0)[:, :2]])
    np.testing.assert_allclose(scores, expected, atol=0.005)
    alone = np.hstack(
        [[one.scores for one in part.predict(list(images))] for part in (parts[0], parts[2])]
    )
    np.testing.assert_array_equal(scores[:, [0, 1, 2, 6, 7]], alone)
    assert joint.predict([]) == []
    with pytest.raises(ValueError, match="image 0 is uint8"):
        joint.predict([np.zeros((1, 1, 3), np.uint8)])


def test_features_are_scored_with_the_calibration_of_the_variant_that_gave_them(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "colours" / "1"
    write_colours_apart(folder)
    backbone = add_int8_apart(folder).backbone
    assert backbone is not None
    by_variant = {
        name: load_predictor(folder, "litert", variant=name) for name in ("float", "int8")
    }
    of_one_variant = load_predictor(folders["plain"], "litert")
    other_backbone = of_one_variant.backbone
    assert other_backbone is not None
    images = list(pictures(5))
    for name, predictor in by_variant.items():
        expected = predictor.predict(images)
        assert {one.features[backbone].variant for one in expected} == {name}
        features = {
            backbone: Features(name, np.array([one.features[backbone].values for one in expected]))
        }
        for other in by_variant.values():
            assert [*map(tuple, other.of_features(features).tolist())] == [
                one.scores for one in expected
            ]
        # The backbone of a model that does not have the variant.
        unknown = {other_backbone: features[backbone]}
        assert [*map(tuple, of_one_variant.of_features(unknown).tolist())] == [
            one.scores for one in of_one_variant.predict(images)
        ]


def test_a_network_is_freed_with_its_last_predictor(folders: dict[str, Path]) -> None:
    networks = SharedNetworks()
    first = load_predictor(folders["plain"], "litert", networks=networks)
    before = interpreters()
    second = load_predictor(folders["steep"], "litert", networks=networks)
    del first
    assert interpreters() == before
    assert len(second.predict(list(pictures(1)))) == 1
    del second
    assert interpreters() == before - 1


def test_models_of_different_sizes_are_refused(folders: dict[str, Path]) -> None:
    parts = [
        load_predictor(folders["plain"], "litert"),
        load_predictor(Path("model/bundled/scenes/5")),
    ]
    with pytest.raises(ValueError, match=r"scenes takes images of .*: submit a job for each"):
        JointPredictor(parts)


def test_a_backbone_of_another_width_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    write_head(tmp_path / "other" / "1", folders["plain"], 1.0, LABELS)
    folder = tmp_path / "other" / "1"
    card = load_card(folder)
    Head(np.zeros((4, 3), np.float32), np.zeros(3, np.float32)).save(folder / "head.npz")
    files = card.files | {"head": describe_file(folder / "head.npz")}
    write_card(card.model_copy(update={"files": files}), folder)
    with pytest.raises(ArtifactInvalid, match=r"gives .*, which is not what its card says"):
        load_predictor(folder, "litert")
