"""Downloads of backbones from a server of our own: real files with random weights."""

import asyncio
import hashlib
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from aiohttp import web
from keras.src.applications import efficientnet_v2, imagenet_utils, mobilenet_v2, mobilenet_v3
from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

from model.training import backbones, imagenet
from model.training.backbones import BACKBONES, WEIGHTS_URL, BackboneName
from model.training.config import DataConfig, TrainingConfig, TrainingError
from model.training.imagenet import (
    DownloadFailed,
    class_lines,
    keras_network,
    load_network,
    load_published,
)
from model.training.network.build import Network, build_network
from scripts.workshop.make_imagenet import main
from tests.worker.fetching.site import Answer, Site

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
    "ignore:`input_shape` is undefined or non-square:UserWarning",
)

SHAPE = (96, 96, 3)
BACKBONE = "/mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_96_no_top.h5"
WHOLE = "/mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5"
SMALL = "/mobilenet_v3/weights_mobilenet_v3_small_224_0.75_float_no_top_v2.h5"
CLASSES = "/imagenet_class_index.json"


class Publisher:
    """A server of `files` that answers with its `fault`, if it is set.

    `cache` is the folder of Keras's downloads.
    """

    def __init__(self, cache: Path) -> None:
        self.files: dict[str, bytes] = {}
        self.fault: Answer | None = None
        self.cache = cache
        self.site = Site(dict.fromkeys((BACKBONE, WHOLE, SMALL, CLASSES), self._answer))

    @property
    def asked(self) -> list[str]:
        return [seen.target for seen in self.site.requests]

    @property
    def kept(self) -> list[str]:
        return [path.name for path in self.cache.rglob("*") if path.is_file()]

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if self.fault:
            return await self.fault(request)
        return web.Response(body=self.files[request.path])


@pytest.fixture
def publisher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    cache = tmp_path / "keras"
    cache.mkdir()
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(cache))
    publisher = Publisher(cache)
    with publisher.site as site:
        monkeypatch.setattr(backbones, "WEIGHTS_URL", site.url("/"))
        monkeypatch.setattr(imagenet, "CLASSES_URL", site.url(CLASSES))
        yield publisher


@pytest.fixture(scope="module")
def backbone() -> Any:
    return keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=SHAPE)


@pytest.fixture(scope="module")
def backbone_file(backbone: Any, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return as_published(backbone, tmp_path_factory.mktemp("published"))


def as_published(network: Any, folder: Path) -> bytes:
    """The weights of a network in the legacy format of the published files."""
    with h5py.File(folder / "weights.h5", "w") as file:
        save_weights_to_hdf5_group(file, network)
    return (folder / "weights.h5").read_bytes()


def same_weights(one: Any, other: Any) -> bool:
    pairs = zip(one.get_weights(), other.get_weights(), strict=True)
    return all(np.array_equal(*pair) for pair in pairs)


def start_training(folder: Path, **settings: object) -> Network:
    data = {
        "input_shape": SHAPE,
        "resize_shape": SHAPE[:2],
        "images_base_path": folder,
        "targets": ["red", "blue"],
        "image_name_col": "name",
    }
    return build_network(
        DataConfig.model_validate(data),
        TrainingConfig.model_validate({"model_path": folder / "tiny/1", **settings}),
    )


def test_training_starts_with_the_published_weights_and_downloads_them_once(
    publisher: Publisher, backbone: Any, backbone_file: bytes, tmp_path: Path
) -> None:
    publisher.files[BACKBONE] = backbone_file
    base = {path_in_network(weight): np.asarray(weight) for weight in backbone.weights}
    for _ in range(2):
        started = start_training(tmp_path)
        loaded = [*started.frozen_backbone.weights, *started.tuned_backbone.weights]
        assert {path_in_network(weight) for weight in loaded} == base.keys()
        for weight in loaded:
            assert np.array_equal(weight, base[path_in_network(weight)]), weight.path
    assert publisher.asked == [BACKBONE]
    sha256 = hashlib.sha256(backbone_file).hexdigest()
    assert start_training(tmp_path, base_weights_sha256=sha256).base_sha256 == sha256
    assert publisher.asked == [BACKBONE]
    for weights in ("imagenet", str(publisher.cache / "models" / Path(BACKBONE).name)):
        with pytest.raises(TrainingError, match=r"base_weights.*(hash does not match|SHA-256)"):
            start_training(tmp_path, base_weights=weights, base_weights_sha256="0" * 64)


def path_in_network(weight: Any) -> str:
    """The names of a weight and its layer."""
    return "/".join(weight.path.split("/")[-2:])


async def missing(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(status=404)


async def a_page(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(text="<html>Log in to this network")


async def interrupted(request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "9000000"})
    await response.prepare(request)
    await response.write(bytes(100_000))
    assert request.transport is not None
    request.transport.close()
    return response


async def silence(request: web.BaseRequest) -> web.StreamResponse:
    await asyncio.sleep(600)
    return web.Response()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (missing, "cannot be downloaded .*404.*: try again"),
        (a_page, "was removed: run again"),
        (interrupted, "cannot be downloaded .*got only 100000 out of 9000000 bytes"),
        (silence, "cannot be downloaded .*timed out"),
    ],
)
def test_a_failed_download_stops_training_with_a_message_and_is_not_kept(
    publisher: Publisher,
    fault: Answer,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publisher.fault = fault
    if fault is silence:
        monkeypatch.setattr(imagenet, "SOCKET_TIMEOUT_S", 3)
    with pytest.raises(TrainingError, match=f"^base_weights: .*{message}.*give the path of"):
        start_training(tmp_path)
    assert (publisher.asked, publisher.kept) == ([BACKBONE], [])


def test_an_unreachable_publisher_stops_training_with_a_message(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbones, "WEIGHTS_URL", "http://127.0.0.1:1/")
    with pytest.raises(TrainingError, match=r"refused.*Without internet, give the path of"):
        start_training(tmp_path)


def test_a_partial_file_of_a_killed_run_is_downloaded_again(
    publisher: Publisher, backbone: Any, backbone_file: bytes
) -> None:
    publisher.files[BACKBONE] = backbone_file
    kept = publisher.cache / "models" / Path(BACKBONE).name
    kept.parent.mkdir()
    kept.write_bytes(backbone_file[: len(backbone_file) // 2])
    with pytest.raises(DownloadFailed, match=r"run again \(.*truncated file"):
        load_published(SHAPE)
    assert same_weights(load_published(SHAPE)[0], backbone)
    assert publisher.asked == [BACKBONE]


def test_another_backbone_is_downloaded_with_the_hash_that_keras_publishes(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = keras.applications.MobileNetV3Small(
        include_top=False, weights=None, input_shape=SHAPE, alpha=0.75
    )
    publisher.files[SMALL] = as_published(small, tmp_path)
    settings: dict[str, object] = {"backbone": "MobileNetV3Small", "backbone_width": 0.75}
    with pytest.raises(
        TrainingError, match=r"hash does not match.*of MobileNetV3Small .alpha 0\.75"
    ):
        start_training(tmp_path, **settings)
    md5 = hashlib.md5(publisher.files[SMALL]).hexdigest()
    monkeypatch.setitem(BACKBONES["MobileNetV3Small"].md5, 0.75, md5)
    started = start_training(tmp_path, **settings)
    loaded = [*started.frozen_backbone.weights, *started.tuned_backbone.weights]
    base = {path_in_network(weight): np.asarray(weight) for weight in small.weights}
    assert {path_in_network(weight) for weight in loaded} == base.keys()
    for weight in loaded:
        assert np.array_equal(weight, base[path_in_network(weight)]), weight.path
    assert publisher.asked == [SMALL]


def test_the_addresses_and_hashes_are_those_of_keras() -> None:
    assert WEIGHTS_URL + "mobilenet_v2/" == mobilenet_v2.BASE_WEIGHT_PATH
    assert WEIGHTS_URL + "mobilenet_v3/" == mobilenet_v3.BASE_WEIGHT_PATH
    assert WEIGHTS_URL + "efficientnet_v2/" == efficientnet_v2.BASE_WEIGHTS_PATH
    for size in ("small", "large"):
        name: BackboneName = "MobileNetV3Small" if size == "small" else "MobileNetV3Large"
        assert BACKBONES[name].md5 == {
            width: mobilenet_v3.WEIGHTS_HASHES[f"{size}_224_{width}_float"][1]
            for width in BACKBONES[name].widths
        }
    assert BACKBONES["EfficientNetV2B0"].md5 == {1.0: efficientnet_v2.WEIGHTS_HASHES["b0"][1]}
    assert imagenet.CLASSES_URL == imagenet_utils.CLASS_INDEX_PATH
    assert imagenet.CLASSES_MD5 in inspect.getsource(imagenet_utils.decode_predictions)


@pytest.mark.parametrize("input_shape", [SHAPE, (48, 64, 3), None])
def test_a_file_has_the_name_that_keras_gives_it(
    publisher: Publisher,
    input_shape: tuple[int, int, int] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publisher.fault = a_page
    monkeypatch.setattr(mobilenet_v2, "BASE_WEIGHT_PATH", publisher.site.url("/mobilenet_v2/"))
    with pytest.raises(OSError, match="signature not found"):
        keras.applications.MobileNetV2(include_top=input_shape is None, input_shape=input_shape)
    assert len(publisher.kept) == 1
    with pytest.raises(DownloadFailed, match="signature not found"):
        load_published(input_shape)
    assert len(publisher.asked) == 1
    assert publisher.kept == []


@pytest.mark.parametrize(
    ("name", "width", "side"),
    [
        ("MobileNetV2", 0.35, 128),
        ("MobileNetV2", 1.4, 224),
        ("MobileNetV3Small", 0.75, 96),
        ("MobileNetV3Large", 1.0, 96),
        ("EfficientNetV2B0", 1.0, 96),
    ],
)
def test_the_address_of_each_backbone_is_that_of_keras(
    publisher: Publisher,
    name: BackboneName,
    width: float,
    side: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publisher.fault, url = a_page, publisher.site.url
    monkeypatch.setattr(mobilenet_v2, "BASE_WEIGHT_PATH", url("/mobilenet_v2/"))
    monkeypatch.setattr(mobilenet_v3, "BASE_WEIGHT_PATH", url("/mobilenet_v3/"))
    monkeypatch.setattr(efficientnet_v2, "BASE_WEIGHTS_PATH", url("/efficientnet_v2/"))
    with pytest.raises((OSError, ValueError)):  # the page has no weights
        keras_network(name, width, include_top=False, input_shape=(side, side, 3))
    (asked,) = publisher.asked
    assert BACKBONES[name].weights_url(width, (side, side)) == url(asked)


def test_wide_networks_have_weights_of_one_size_for_all_pictures() -> None:
    wide = BACKBONES["MobileNetV2"].weights_url(1.4, (96, 96))
    assert wide.endswith("mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.4_224_no_top.h5")


def test_the_whole_network_and_its_classes_are_downloaded(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = keras.applications.MobileNetV2(weights=None)
    publisher.files[WHOLE] = as_published(whole, tmp_path)
    index = {str(place): [f"n{place}", f"thing_{place}"] for place in reversed(range(1000))}
    publisher.files[CLASSES] = json.dumps(index).encode()
    with pytest.raises(DownloadFailed, match="hash does not match"):
        class_lines()
    md5 = hashlib.md5(publisher.files[CLASSES]).hexdigest()
    monkeypatch.setattr(imagenet, "CLASSES_MD5", md5)
    assert class_lines() == [f"thing {place}" for place in range(1000)]
    assert same_weights(load_network(None, None), whole)
    assert publisher.asked == [CLASSES, WHOLE]


def test_imagenet_cannot_be_made_without_the_downloads(
    publisher: Publisher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publisher.fault = missing
    assert main(["--folder", str(tmp_path / "imagenet" / "1")]) == 2
    printed = capsys.readouterr().err
    assert "404" in printed
    assert "give --backbone, --top and --labels" in printed
    assert not (tmp_path / "imagenet").exists()


def test_nothing_is_downloaded_if_all_files_are_given(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise ValueError("stop before the conversion")

    monkeypatch.setattr(imagenet, "load_network", stop)
    (tmp_path / "labels.txt").write_text("tench\ngoldfish\n")
    files = {"backbone": "a.weights.h5", "top": "a.npz", "labels": "labels.txt"}
    given = [text for name, file in files.items() for text in (f"--{name}", str(tmp_path / file))]
    assert main(["--folder", str(tmp_path / "imagenet" / "1"), *given]) == 2
    assert publisher.asked == []
