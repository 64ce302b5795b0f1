"""docs/onnx.md: networks of PyTorch and scikit-learn are exported, added and score pictures."""

import json
import os
import pickle
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from model.predictor import load_predictor
from tests.browser import NOT_TESTED
from tests.documents import Block, Shell, runnable

# Mean colours of pixels that are scaled as for ImageNet, and weights for them.
TORCH_CLASSIFIER = """
import torch

torch.manual_seed(3)
model = torch.nn.Sequential(
    torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.ReLU(),
    torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Dropout(0.9), torch.nn.Linear(8, 3),
)
"""
TORCH_SCORES = """
import json
import numpy
import torch
from classifier import model

model.eval()
images = torch.tensor(numpy.load("images.npy")).permute(0, 3, 1, 2) / 255
mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, None, :, None, None]
with torch.no_grad():
    print(json.dumps(model((images - mean) / std).softmax(1).tolist()))
"""
SKLEARN_CLASSIFIER = """
import pickle

with open("pipeline.pkl", "rb") as file:
    pipeline = pickle.load(file)
"""


def torch_python() -> str:
    """An interpreter with PyTorch: that of the tests, or the one that TORCH_PYTHON names."""
    python = os.environ.get("TORCH_PYTHON", sys.executable)
    found = subprocess.run([python, "-c", "import torch, onnxscript"], capture_output=True)
    if found.returncode:
        pytest.skip(
            f"{NOT_TESTED}: the export of PyTorch, because {python} has no torch and onnxscript: "
            "set TORCH_PYTHON to an interpreter that has them"
        )
    return python


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    (tmp_path / "cats.txt").write_text("tabby\ntiger\nother\n")
    return Shell(tmp_path, {"PIQUEUE_REGISTRY_URL": str(tmp_path / "registry")})


def added(shell: Shell, images: np.ndarray) -> np.ndarray:
    predictor = load_predictor(shell.folder / "registry" / "cats" / "1")
    return np.array([prediction.scores for prediction in predictor.predict(list(images))])


def noise(count: int, size: int) -> np.ndarray:
    generator = np.random.default_rng(7)
    colours = generator.integers(0, 200, (count, 1, 1, 3))
    return (colours + generator.integers(0, 56, (count, size, size, 3))).astype(np.uint8)


def test_a_network_of_pytorch_scores_as_in_pytorch(shell: Shell) -> None:
    python = torch_python()
    export, add, *_ = runnable("docs/onnx.md")
    (shell.folder / "classifier.py").write_text(TORCH_CLASSIFIER)
    images = noise(5, 224)
    np.save(shell.folder / "images.npy", images)

    def run(text: str) -> str:
        return shell.run(f"{shlex.quote(python)} -c {shlex.quote(text)}")

    run(export.text)
    assert "added cats@1 with 3 labels" in shell.run(add)
    expected = json.loads(run(TORCH_SCORES).splitlines()[-1])
    np.testing.assert_allclose(added(shell, images), expected, atol=1e-4)


def test_a_pipeline_of_scikit_learn_scores_as_in_scikit_learn(shell: Shell) -> None:
    *_, export, add = runnable("docs/onnx.md")
    images = noise(60, 32)
    rows = (images.reshape(60, -1) / 255).astype(np.float32)
    labels = images.mean(axis=(1, 2)).argmax(axis=1)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, labels)
    (shell.folder / "pipeline.pkl").write_bytes(pickle.dumps(pipeline))
    (shell.folder / "classifier.py").write_text(SKLEARN_CLASSIFIER)
    shell.run(Block("python", export.text))
    assert "added cats@1 with 3 labels" in shell.run(add)
    scores = added(shell, images)
    np.testing.assert_allclose(scores, pipeline.predict_proba(rows), atol=1e-3)
    assert set(scores.argmax(axis=1)) == {0, 1, 2}
