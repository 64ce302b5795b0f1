"""Chooses which variant of a model LiteRT runs, by measuring each on this processor."""

import hashlib
import platform
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import structlog
from pydantic import TypeAdapter

from model.artifact.card import ArtifactInvalid, Card, VariantName
from model.engines.litert import LiteRTPredictor

# The fastest of these runs counts: the others met other work on the processor.
RUNS = 8
# The lines of /proc/cpuinfo that say what a processor can do.
_CPU_LINES = {
    *("vendor_id", "cpu family", "model", "model name", "stepping", "flags"),
    *("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "Features", "isa"),
}
# CPU milliseconds a picture, by processor and by the SHA-256 of the LiteRT file.
_SPEEDS = TypeAdapter(dict[str, dict[str, float]])

log = structlog.get_logger()


def choose_variant(
    card: Card, folder: Path, choice: str, speeds_path: Path | None
) -> tuple[VariantName, float | None]:
    """Return the variant to run and its speed, in CPU milliseconds a picture.

    `choice` names a variant, or is "auto" for the fastest one on this processor. A model without
    the named variant runs as `float`. Each variant is measured once, and the file `speeds_path`
    keeps the result; without it, a named variant is not measured.

    Raises:
        ArtifactInvalid, ValueError, RuntimeError: LiteRT can run none of them.
    """
    names: list[VariantName] = present_variants(card, folder)
    if choice != "auto":
        names = [name for name in names if name == choice] or ["float"]
        if speeds_path is None:
            return names[0], None
    known = _read(speeds_path)
    speeds = known.setdefault(processor(), {})
    missing = [name for name in names if _sha256(card, name) not in speeds]
    for name in missing:
        try:
            speeds[_sha256(card, name)] = measure(card, folder, name)
        except (ArtifactInvalid, ValueError, RuntimeError) as error:
            if len(names) == 1:
                raise
            log.warning("variant_unusable", variant=name, reason=str(error))
            names.remove(name)
    if missing and speeds_path:
        _write(speeds_path, known)
    chosen = min(names, key=lambda name: speeds[_sha256(card, name)])
    picture_ms = speeds[_sha256(card, chosen)]
    log.info("variant_chosen", model=f"{card.name}@{card.version}", variant=chosen, ms=picture_ms)
    return chosen, picture_ms


def present_variants(card: Card, folder: Path) -> list[VariantName]:
    """List `float` and the other variants whose files are in `folder`."""
    present = [name for name, file in card.variants.items() if (folder / file.path).is_file()]
    return ["float", *present]


def measure(card: Card, folder: Path, name: VariantName) -> float:
    """Return the CPU milliseconds that a variant takes for one picture in one thread."""
    predictor = LiteRTPredictor(card, folder, threads=1, variant=name)
    blank = np.zeros((*card.input_size, 3), np.uint8)
    predictor.predict([blank])
    times = []
    for _ in range(RUNS):
        started = time.thread_time()
        predictor.predict([blank])
        times.append(time.thread_time() - started)
    return round(min(times) * 1000, 2)


def processor() -> str:
    """Return a name of this processor, its features and the version of LiteRT."""
    try:
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    except OSError:
        first = [f"model name: {platform.processor() or platform.machine()}"]
    fields = [line.partition(":")[::2] for line in first]
    found = {key.strip(): value.strip() for key, value in fields if key.strip() in _CPU_LINES}
    features = hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()[:16]
    name = found.get("model name", platform.machine())
    return f"{name}, {features}, LiteRT {version('ai-edge-litert')}"


def _sha256(card: Card, name: VariantName) -> str:
    return card.of_variant(name).files["litert"].sha256


def _read(path: Path | None) -> dict[str, dict[str, float]]:
    try:
        return _SPEEDS.validate_json(path.read_bytes()) if path else {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log.warning("speeds_not_read", path=str(path), reason=str(error))
        return {}


def _write(path: Path, speeds: dict[str, dict[str, float]]) -> None:
    """Replace the file at once: several processes may write it, and the last one counts."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".speeds-", delete=False) as file:
            file.write(_SPEEDS.dump_json(speeds, indent=2))
        Path(file.name).replace(path)
    except OSError as error:
        log.warning("speeds_not_written", path=str(path), reason=str(error))
