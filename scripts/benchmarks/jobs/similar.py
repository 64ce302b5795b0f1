"""What it costs to compare the pictures of a job, and what that finds.

`python -m scripts.benchmarks.jobs.similar FOLDER` measures the groups of near-duplicates on a
folder of photos: 100 of them are changed, in ways that make near-duplicates of them.
"""

import hashlib
import io
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.artifact.features import pack_features
from model.compare import Comparison, Picture, compare
from model.images.decode import decode
from model.images.difference_hash import difference_hash
from model.neighbours import unit_rows
from model.predictor import load_predictor
from scripts.benchmarks.support.benchmark_run import BenchmarkRun
from scripts.benchmarks.support.figures import Figure
from scripts.benchmarks.training.teach import SCENES

WIDTH = 1280
# The made-up features have this many dimensions, as photos of related subjects.
DIMENSIONS = 48
# Every so many pictures, one is nearly the same as the one before.
EVERY = 10
CHECKED = 500
CHANGED = 100
_BLOCK = 5000
_LIKE = Image.Resampling.LANCZOS


def similar(run: BenchmarkRun) -> Iterator[Figure]:
    """Compare made-up pictures of 1,280 features: time, memory, and the neighbours found."""
    count = run.scale.scored_rows
    started, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    comparison = _compared(_made_up(count))
    wall_s = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    on = f"{count} pictures, {wall_s:.1f} s, of which this process makes them"
    bound = 0.0005 * count
    yield Figure.of("comparison of a job", "CPU s", [cpu_s], ("<=", bound), on)
    # The children before it are smaller, or count too.
    peak_mb = after.ru_maxrss * 1024 / 1e6
    yield Figure.of("its memory", "MB", [peak_mb], ("<=", 150 + 0.0012 * count), on)
    share = _found_share(count, comparison)
    note = f"of the 20 nearest by all pairs, {CHECKED} pictures"
    yield Figure.of("neighbours found", "", [share], (">=", 0.7), note)
    doubles = np.arange(1, count, EVERY)
    grouped = float((comparison.groups[doubles] == doubles - 1).mean())
    yield Figure.of("near-duplicates found", "", [grouped], (">=", 0.98), f"{len(doubles)} of them")


def _compared(pictures: Iterator[Picture]) -> Comparison:
    found = compare(pictures)
    assert found is not None
    return found


def _made_up(count: int) -> Iterator[Picture]:
    """Pictures in clusters; every tenth is followed by one that is nearly the same."""
    for start in range(0, count, _BLOCK):
        for number, row in enumerate(_rows(count, start), start):
            digest = hashlib.sha256(str(number).encode()).digest()
            shown = number - (number % EVERY == 1)
            hashed = hashlib.sha256(f"hash {shown}".encode()).digest()[:8]
            yield Picture(number, digest, pack_features(row), hashed)


def _rows(count: int, start: int) -> NDArray[np.float32]:
    """The features of up to `_BLOCK` pictures from one on."""
    fixed, random = np.random.default_rng(1), np.random.default_rng([2, start])
    mixed = fixed.standard_normal((DIMENSIONS, WIDTH), np.float32)
    clusters = fixed.standard_normal((max(200, count // 20), DIMENSIONS), np.float32)
    size = min(_BLOCK, count - start)
    chosen = clusters[random.integers(len(clusters), size=size)]
    inner = chosen + 0.35 * random.standard_normal((size, DIMENSIONS), np.float32)
    doubles = np.arange(1, size, EVERY)
    inner[doubles] = inner[doubles - 1] + 0.02 * inner[doubles]
    noise = 0.05 * random.standard_normal((size, WIDTH), np.float32)
    return np.maximum(inner @ mixed / 7 - 0.2 + noise, 0)


def _found_share(count: int, comparison: Comparison) -> float:
    """The share of the truly nearest pictures among those that were found, of some pictures."""
    k = comparison.neighbours.shape[1]
    asked = np.sort(np.random.default_rng(3).choice(count, min(CHECKED, count), replace=False))
    queries = np.empty((len(asked), WIDTH), np.float32)
    for start in range(0, count, _BLOCK):
        inside = (asked >= start) & (asked < start + _BLOCK)
        if inside.any():
            queries[inside] = _rows(count, start)[asked[inside] - start]
    queries = unit_rows(queries)
    best = np.full((len(asked), k), -2, np.float32)
    index = np.full((len(asked), k), -1, np.int64)
    for start in range(0, count, _BLOCK):
        cosines = queries @ unit_rows(_rows(count, start)).T
        numbers = np.broadcast_to(np.arange(start, start + cosines.shape[1]), cosines.shape)
        cosines[numbers == asked[:, None]] = -2
        both, whose = np.hstack([best, cosines]), np.hstack([index, numbers])
        top = np.argpartition(-both, k - 1, axis=1)[:, :k]
        best, index = (np.take_along_axis(each, top, 1) for each in (both, whose))
    found = comparison.neighbours[asked]
    return float(
        np.mean([np.isin(one, other).mean() for one, other in zip(index, found, strict=True)])
    )


def quality(folder: Path) -> Iterator[str]:
    """Lines on how many changed photos are found, and how many different photos are taken for one.

    The folder has photos that differ from each other.
    """
    predictor = load_predictor(SCENES, "litert")
    paths = sorted(folder.iterdir())
    random = np.random.default_rng(0)
    chosen = set(random.choice(len(paths), min(CHANGED, len(paths)), replace=False).tolist())
    pictures: list[Picture] = []
    origins: list[tuple[int, str]] = []
    for number, path in enumerate(paths):
        contents = {"": path.read_bytes()}
        if number in chosen:
            contents |= changes(contents[""])
        for change, content in contents.items():
            pixels = decode(content, predictor.card.input_size).pixels
            (prediction,) = predictor.predict([pixels])
            (features,) = prediction.features.values()
            digest = hashlib.sha256(content).digest()
            hashed = difference_hash(pixels)
            pictures.append(Picture(len(pictures), digest, pack_features(features.values), hashed))
            origins.append((number, change))
    found = _compared(iter(pictures))
    group = dict(zip(found.numbers.tolist(), found.groups.tolist(), strict=True))
    original = {number: at for at, (number, change) in enumerate(origins) if not change}
    for change in dict.fromkeys(change for _, change in origins if change):
        rows = [(at, number) for at, (number, one) in enumerate(origins) if one == change]
        share = np.mean([group[at] == group[original[number]] for at, number in rows])
        yield f"{change}: {share:.0%} of {len(rows)} are in the group of their photo"
    members: dict[int, list[int]] = {}
    for at, first in group.items():
        members.setdefault(first, []).append(origins[at][0])
    groups = [one for one in members.values() if len(one) > 1]
    pairs = [(a, b) for one in groups for at, a in enumerate(one) for b in one[:at]]
    true = sum(a == b for a, b in pairs)
    variants = 1 + len(_CHANGES)
    possible = len(chosen) * variants * (variants - 1) // 2
    yield (
        f"{len(paths)} photos, {len(groups)} groups: of the pairs in them {true} are true, of "
        f"{possible}, and {len(pairs) - true} are of different photos: precision "
        f"{true / max(len(pairs), 1):.3f}, recall {true / possible:.3f}"
    )


def changes(content: bytes) -> dict[str, bytes]:
    """The bytes of a photo, changed in some ways."""
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    made = {}
    for name, (cut, scale, quality_) in _CHANGES.items():
        width, height = picture.size
        x, y = round(width * cut), round(height * cut)
        smaller = picture.crop((x, y, width - x, height - y))
        size = (max(1, round(smaller.width * scale)), max(1, round(smaller.height * scale)))
        target = io.BytesIO()
        smaller.resize(size, _LIKE).save(target, "JPEG", quality=quality_)
        made[name] = target.getvalue()
    return made


# How much is cut off at each side, the scale, and the quality of the JPEG.
_CHANGES = {
    "encoded again": (0.0, 1.0, 40),
    "half the size": (0.0, 0.5, 90),
    "cropped by 4 % at each side": (0.04, 1.0, 90),
    "cropped by 8 % at each side": (0.08, 1.0, 90),
}


if __name__ == "__main__":
    for line in quality(Path(sys.argv[1])):
        print(line, flush=True)
