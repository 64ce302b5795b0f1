"""The peak memory of decoding, measured in a process of its own, against what headers say."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from model.images.decode import decode
from model.images.headers import read_requirements
from model.images.memory_budget import MemoryBudget
from model.images.result import ImageFault, ImageRejected
from tests.hostile import encode, picture

WIDE, HIGH = 4000, 3000
# What the libraries allocate at their first use, and what malloc keeps.
SLACK_BYTES = 30_000_000
COSTLY: dict[str, tuple[str, str, dict[str, Any]]] = {
    "jpeg": ("JPEG", "RGB", {}),
    "progressive jpeg": ("JPEG", "RGB", {"progressive": True, "subsampling": 0}),
    "progressive cmyk jpeg": ("JPEG", "CMYK", {"progressive": True}),
    "png": ("PNG", "RGB", {}),
    "transparent png": ("PNG", "RGBA", {}),
    "transparent grey png": ("PNG", "LA", {}),
    "png of 16 bits": ("PNG", "I;16", {}),
    "png of a palette": ("PNG", "P", {}),
    "gif": ("GIF", "P", {}),
    "bmp": ("BMP", "RGB", {}),
    "webp": ("WEBP", "RGB", {"lossless": True, "method": 0}),
    "avif": ("AVIF", "RGB", {"speed": 10}),
    "heic": ("HEIF", "RGB", {"quality": 30, "enc_params": {"preset": "ultrafast"}}),
    "jpeg 2000": ("JPEG2000", "RGB", {}),
    "transparent jpeg 2000": ("JPEG2000", "RGBA", {"irreversible": True}),
    "tiff": ("TIFF", "RGB", {}),
    "transparent webp": ("WEBP", "RGBA", {"quality": 10, "method": 0}),
}


def grown_bytes(budget_bytes: int, *paths: Path) -> int:
    command = [sys.executable, "-m", "tests.model.images.peak", str(budget_bytes), *map(str, paths)]
    return int(subprocess.run(command, check=True, capture_output=True, timeout=120).stdout)


@pytest.mark.parametrize("name", COSTLY)
def test_decoding_uses_no_more_memory_than_its_header_requires(name: str, tmp_path: Path) -> None:
    kind, mode, options = COSTLY[name]
    payload = encode(picture(WIDE, HIGH, mode), kind, **options)
    path = tmp_path / "picture"
    path.write_bytes(payload)
    required = read_requirements(kind, payload, 224, 50_000_000)
    assert (required.width, required.height) == (WIDE, HIGH)
    assert grown_bytes(512_000_000, path) < required.memory_bytes + SLACK_BYTES


def test_threads_together_stay_within_the_memory_budget(tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(encode(picture(WIDE, HIGH), "WEBP", lossless=True, method=0))
    one = grown_bytes(512_000_000, path)
    assert one > 150_000_000, "the picture needs less memory than this test assumes"
    assert grown_bytes(250_000_000, *[path] * 6) < 250_000_000 + SLACK_BYTES


def test_a_jpeg_of_50_megapixels_is_decoded_and_a_webp_of_50_megapixels_is_rejected() -> None:
    photo = encode(Image.new("RGB", (8160, 6120), "red"), "JPEG", progressive=True)
    assert decode(photo).width == 8160
    sketch = encode(Image.new("L", (8160, 6120)), "WEBP", lossless=True, method=0)
    with pytest.raises(ImageRejected, match="MB are allowed") as caught:
        decode(sketch)
    assert caught.value.code == ImageFault.TOO_MANY_PIXELS


def test_memory_is_reserved_first_come_first_served_and_released() -> None:
    memory = MemoryBudget(10)
    order: list[str] = []
    waiting = threading.Event()

    def large() -> None:
        waiting.set()
        with memory.reserve(10):
            order.append("large")

    with memory.reserve(5):
        threads = [threading.Thread(target=large)]
        threads[0].start()
        assert waiting.wait(30)
        assert order == []
    threads[0].join(30)
    assert order == ["large"]
    with pytest.raises(RuntimeError), memory.reserve(10):
        raise RuntimeError
    with memory.reserve(10):
        pass
    with pytest.raises(ValueError, match="cannot reserve 11 bytes of 10"), memory.reserve(11):
        pass
