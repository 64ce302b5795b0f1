"""`piqueue models`: a model is tested before it is added, and problems are reported."""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import keras
import numpy as np
import onnx
import pytest
from aiohttp import web
from keras import layers

from scripts.commands import models
from scripts.commands.__main__ import main
from scripts.local.stack import Stack
from tests.api.polling import wait_done
from tests.conftest import STACK_ENV
from tests.documents import Shell, runnable
from tests.model.colours import write_colours
from tests.model.onnx_networks import colours as onnx_colours
from tests.pictures import jpeg
from tests.worker.fetching.site import Site
from tests.worker.registry import add_version

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    registry = tmp_path / "registry"
    monkeypatch.setenv("PIQUEUE_REGISTRY_URL", str(registry))
    monkeypatch.setenv("PIQUEUE_MODELS_CACHE_PATH", str(tmp_path / "cache"))
    return registry


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return add_version(tmp_path / "made", "1")


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """A Keras file that scores how red, green and blue a picture is."""
    pixels = keras.Input((20, 28, 3))
    dense = layers.Dense(3, activation="softmax")
    network = keras.Model(pixels, dense(layers.GlobalAveragePooling2D()(pixels)))
    dense.set_weights([np.eye(3) * 6, np.zeros(3)])
    path = tmp_path / "colours.keras"
    network.save(path)
    return path


def test_a_registry_that_cannot_be_written_is_named(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PIQUEUE_REGISTRY_URL", str(tmp_path / "file" / "models"))
    told = rejected(capsys, "add", str(made))
    assert f"the registry {tmp_path}/file/models cannot be written (Not a directory)" in told
    assert "set PIQUEUE_REGISTRY_URL to a folder that you can write to" in told


def test_a_model_is_not_written_among_the_bundled_ones(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.delenv("PIQUEUE_REGISTRY_URL", raising=False)
    for arguments in (["add", str(made)], ["promote", "scenes", "5"], ["rollback", "scenes"]):
        assert "set PIQUEUE_REGISTRY_URL to the registry" in rejected(capsys, *arguments)
    assert main(["models", "list"]) == 0


def rejected(capture: Capture, *arguments: str) -> str:
    assert main(["models", *arguments]) == 1
    return capture.readouterr().err


def test_an_added_model_is_listed_and_promoted(
    registry: Path, tmp_path: Path, made: Path, capsys: Capture
) -> None:
    assert main(["models", "add", str(made)]) == 0
    assert capsys.readouterr().out == "added places@1 with 4 labels\n"
    assert main(["models", "add", str(add_version(tmp_path / "made", "2"))]) == 0
    assert "piqueue models promote places 2" in capsys.readouterr().out
    assert main(["models", "promote", "places", "2"]) == 0
    assert main(["models", "rollback", "places"]) == 0
    assert f"again, where PIQUEUE_REGISTRY_URL is {registry}" in capsys.readouterr().out
    assert main(["models", "list"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines["places@1"].endswith("  current")
    assert "current" not in lines["places@2"]
    assert lines["scenes@5"].endswith("  current default")
    assert "top 5 of 1000 labels  23 MB a thread" in lines["imagenet@2"]
    assert main(["models", "list", "--json"]) == 0
    listed = {(one["name"], one["version"]): one for one in json.loads(capsys.readouterr().out)}
    assert len(listed) == len(lines)
    assert (listed["places", "1"]["labels"], listed["places", "1"]["current"]) == (4, True)
    assert listed["imagenet", "2"]["top_k"] == 5
    assert json.loads((registry / "places" / "promoted.json").read_text()) == {"history": ["1"]}


def test_a_zip_from_a_url_is_added(registry: Path, made: Path, capsys: Capture) -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for path in made.iterdir():
            archive.write(path, path.name)
    payload = target.getvalue()

    async def give(_request: Any) -> Any:
        from aiohttp import web

        return web.Response(body=payload)

    with Site({"/places-1.zip": give}) as site:
        assert "--sha256" in rejected(capsys, "add", site.url("/places-1.zip"))
        wrong = rejected(capsys, "add", site.url("/places-1.zip"), "--sha256", "0" * 64)
        assert "SHA-256" in wrong
        assert not registry.exists()
        digest = hashlib.sha256(payload).hexdigest()
        assert main(["models", "add", site.url("/places-1.zip"), "--sha256", digest]) == 0
    assert (registry / "places" / "1" / "model.tflite").exists()


def edit_card(folder: Path, **changes: Any) -> None:
    path = folder / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_an_artifact_that_contradicts_its_card_is_not_added(
    registry: Path, made: Path, capsys: Capture
) -> None:
    edit_card(made, labels=["a", "b"], thresholds=[0.5, 0.5], calibration=None, score_counts={})
    assert "head.npz has weights float32 (1280, 4)" in rejected(capsys, "add", str(made))
    whole = made.parent.with_name("colours") / "1"
    write_colours(whole)
    edit_card(whole, labels=["a", "b"], thresholds=[0.5, 0.5])
    assert "which is not what its card says" in rejected(capsys, "add", str(whole))
    edit_card(whole, labels=list("abc"), thresholds=[0.5] * 3, activation="softmax")
    assert "add up to" in rejected(capsys, "add", str(whole))
    edit_card(made, activation="sigmoid", preprocessing="bgr-crop-0")
    assert "requires the preprocessing 'bgr-crop-0'" in rejected(capsys, "add", str(made))
    (made / "card.json").unlink()
    assert "card.json is missing" in rejected(capsys, "add", str(made))
    assert not registry.exists()


def test_a_keras_file_requires_the_options_that_describe_it(
    registry: Path, tmp_path: Path, colours: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = ["add", str(colours), "--name", "colours"]
    assert "--labels" in rejected(capsys, *named)
    named += ["--labels", str(tmp_path / "labels.txt")]
    assert "labels.txt does not exist: correct" in rejected(capsys, *named, "--scaling", "unit")
    (tmp_path / "labels.txt").write_text("red\ngreen\n")
    assert "--scaling" in rejected(capsys, *named)
    named += ["--scaling", "unit"]
    assert "colours.keras: the network gives scores of shape (3,)" in rejected(capsys, *named)
    monkeypatch.setattr(models, "find_spec", lambda _name: None)
    assert "needs TensorFlow" in rejected(capsys, *named)
    assert "other.keras does not exist" in rejected(capsys, "add", str(tmp_path / "other.keras"))
    assert "labels.txt: give an artifact folder" in rejected(
        capsys, "add", str(tmp_path / "labels.txt")
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_labels_lose_their_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("ä\n\n\ufeff b \n", encoding=encoding)
    assert models._read_labels(path) == ["ä", "b"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a\nM\xfcll\n", "labels.txt, line 2: the byte 0xFC is not UTF-8"),
        (b"\xef\xbb\xbfa\n\xfc\n", "labels.txt, line 2: the byte 0xFC is not UTF-8"),
        (b"a\n\0b\n", r"labels.txt, line 2: '\x00b' has control or invisible characters: remove"),
        (b"a\nb\n\na\n", "labels.txt, line 4: 'a' is in line 1 already"),
    ],
)
def test_labels_that_cannot_be_used_are_named(
    content: bytes, says: str, colours: Path, registry: Path, tmp_path: Path, capsys: Capture
) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_bytes(content)
    described = ["--name", "colours", "--labels", str(labels), "--scaling", "unit"]
    assert says in rejected(capsys, "add", str(colours), *described)


def test_an_onnx_file_requires_the_options_that_describe_it(
    registry: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "colours.onnx"
    onnx.save(onnx_colours("Sigmoid"), path)
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n")
    named = ["add", str(path), "--name", "colours", "--labels", str(tmp_path / "labels.txt")]
    assert "colours.onnx is a .onnx file: add --scaling" in rejected(capsys, *named)
    mean, std = ["--mean", "0.5,0.5,0.5"], ["--std", "0.25,0.5,0.5"]
    for options in (mean, std, [*mean, *std, "--scaling", "tf"]):
        assert "give --mean and --std together, without --scaling" in rejected(
            capsys, *named, *options
        )
    wrong = rejected(capsys, *named, "--scaling", "unit", "--output", "means")
    assert "colours.onnx: the network has no output means, but 1 outputs (scores" in wrong
    assert main(["models", *named, *mean, *std]) == 0
    card = json.loads((registry / "colours" / "1" / "card.json").read_text())
    assert card["training"] == {"mean": [0.5] * 3, "std": [0.25, 0.5, 0.5]}
    monkeypatch.setattr(models, "find_spec", lambda _name: None)
    assert "needs ONNX Runtime, which is not installed: pip install 'piqueue-server[onnx]'" in (
        rejected(capsys, *named, "--scaling", "unit")
    )
    with pytest.raises(SystemExit):
        main(["models", *named, "--mean", "1,2", *std])
    assert "'1,2' must have the form 0.485,0.456,0.406" in capsys.readouterr().err
    (tmp_path / "colours.pt").touch()
    assert "contains code of Python, which Piqueue does not run: export it as .onnx" in (
        rejected(capsys, "add", str(tmp_path / "colours.pt"))
    )


def test_options_of_onnx_files_are_refused_for_a_keras_file(
    registry: Path, tmp_path: Path, colours: Path, capsys: Capture
) -> None:
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n")
    named = ["add", str(colours), "--name", "colours", "--labels", str(tmp_path / "labels.txt")]
    named += ["--scaling", "unit"]
    for option, value in (("layout", "nchw"), ("output", "scores"), ("activation", "none")):
        said = rejected(capsys, *named, f"--{option}", value)
        assert f"--{option}" in said
        assert "is for .onnx files: omit it" in said


def test_a_file_of_an_older_keras_says_how_to_convert_it(
    registry: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "cats.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    says = rejected(capsys, "add", str(tmp_path / "cats.h5"))
    assert "load_model('cats.h5', compile=False).save('cats.keras')" in says


@pytest.mark.parametrize("name", ["My Colours", "Colours", "-c", "a/b"])
def test_an_invalid_model_name_is_rejected_at_once(
    colours: Path, name: str, capsys: Capture
) -> None:
    with pytest.raises(SystemExit):
        main(["models", "add", str(colours), f"--name={name}"])
    assert "lower-case letters, digits, - and _" in capsys.readouterr().err


@pytest.fixture
def serving(registry: Path, tmp_path: Path) -> Iterator[httpx2.Client]:
    """A running Piqueue without added models."""
    env = {**STACK_ENV, "PIQUEUE_REGISTRY_URL": str(registry)}
    with (
        Stack(tmp_path / "stack", env=env) as stack,
        httpx2.Client(base_url=stack.url, timeout=60) as client,
    ):
        yield client


def test_an_added_keras_or_onnx_file_scores_the_next_job(
    serving: httpx2.Client, tmp_path: Path, colours: Path
) -> None:
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n")
    path = tmp_path / "colours.onnx"
    softmax = onnx_colours("Softmax", size=(20, 28), kernel=np.eye(3, dtype=np.float32) * 6)
    onnx.save(softmax, path)
    scores = []
    for version, source in enumerate((colours, path), 1):
        described = ["--name", "colours", "--labels", str(tmp_path / "labels.txt")]
        described += ["--scaling", "unit", "--top-k", "2", "--source-name", "a test"]
        assert main(["models", "add", str(source), *described]) == 0
        model = f"colours@{version}"
        parts: list[Any] = [
            ("files", ("a.jpg", jpeg(1))),
            ("options", (None, json.dumps({"model": model}).encode(), "application/json")),
        ]
        job = wait_done(serving, serving.post("/jobs", files=parts).raise_for_status().json())
        assert (job["status"], job["model"]["version"]) == ("succeeded", str(version))
        (result,) = job["results"]
        assert len(result["scores"]) == 2
        assert set(result["scores"]) < {"red", "green", "blue"}
        scores.append(result["scores"])
    assert scores[1] == pytest.approx(scores[0], abs=0.005)


def test_the_commands_of_the_document_work(registry: Path, colours: Path, tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    _, version, adopt = runnable("docs/models.md")
    add_version(tmp_path / "models", "6", name="scenes")
    printed = shell.run(version)
    assert "scenes now use scenes@6" in printed
    assert printed.rstrip().endswith(f"again, where PIQUEUE_REGISTRY_URL is {registry}")

    colours.rename(tmp_path / "cats.keras")
    (tmp_path / "cats.txt").write_text("red\ngreen\nblue\n")
    payload = (tmp_path / "cats.keras").read_bytes()

    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=payload)

    with Site({"/cats.keras": answer}) as site:
        text = adopt.text.replace("https://example.com", site.url(""))
        shell.run(text.replace("9f86d0…", hashlib.sha256(payload).hexdigest()))
    assert {path.name for path in (registry / "cats").iterdir() if path.is_dir()} == {"1", "2"}
