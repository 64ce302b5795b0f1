"""The project's words: one standard term for each thing, and no private ones."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("api", "deploy", "docs", "model", "piqueue", "scripts", "tests", "worker")
SUFFIXES = (".css", ".html", ".js", ".json", ".lua", ".md", ".py", ".toml", ".yaml", ".yml")
# A word that is not used, in names and in prose, and what to say instead.
WORDS = {
    "door ?bell": "notifier",
    "ring|rings|rung|ringing": "notify, notified",
    "pulse": "heartbeat",
    "sweep|sweeps|sweeper|swept|sweeping": "recovery, recover_stalled_work",
    "arrival|arrivals": "payloads, LoadedPayload",
    "company": "ScoringGate",
    "duelist|shelf|fleeting": "schedule, expiry index, ephemeral",
    "killer|killers|suspect|suspects": "poison item, quarantine",
    "trunk|neck": "backbone, head",
    "journal|journals": "training log",
    "opinion|opinions": "prediction, predictions source",
    "keeper|keepers": "supervisor",
    "news|hearing": "job events, subscribe",
    "findings": "check results, data problems",
    "showing": "view",
}
# The same for words of several, which stand in prose or in a name.
PHRASES = {
    "puts? off|putting off": "defer",
    "puts? away|putting away": "evict",
    "hand(s|ed)? on|handing on": "release",
    "at the door|before the door": "before it is stored",
    "falls? to the ground|fell to the ground": "lost",
    "in these words": "the setting by name",
    "hear(s|d)? (of|from)": "subscribe, receive",
    "takes? in|took in|(is|are|be|been|being) taken in": "submit, accept",
}
# Ordinary words that are no names of modules and classes, because they say nothing there.
NAMES = {
    *("account", "agreement", "alone", "apart", "arrivals", "aside", "cell", "child", "cut"),
    *("finding", "half", "held", "hosts", "judge", "look", "memory", "note", "opinions"),
    *("places", "seen", "showing", "turn", "turns", "watch"),
}
# Where a word stands in its ordinary sense: part of the path, the word, why.
ALLOWED = (
    ("tests/test_words.py", "", "the list itself"),
    ("CHANGELOG.md", "", "names what was renamed"),
    ("doctor.py", "findings", "a key of the JSON that clients read"),
)


def texts() -> Iterator[tuple[str, str]]:
    """Give each text file that we wrote, by its path."""
    top = [path for path in ROOT.iterdir() if path.is_file()]
    below = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    for path in sorted([*top, *below]):
        if path.suffix in SUFFIXES and "bundled" not in path.parts and path.is_file():
            yield str(path.relative_to(ROOT)), path.read_text()


def words_of(text: str) -> str:
    """Write the parts of names as words: `HeldModels` and `held_models` as `held models`."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text)
    return re.sub(r"[_\s]+", " ", apart)


def breaches(path: str, text: str) -> list[str]:
    """Name what a text says that it should not, by line."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        plain = words_of(line)
        for pattern, instead in {**WORDS, **PHRASES}.items():
            for match in re.finditer(rf"\b({pattern})\b", plain, re.IGNORECASE):
                if not any(part in path and word in match[0].lower() for part, word, _ in ALLOWED):
                    found.append(f"{path}:{number}: {match[0]!r}: say {instead}")
    return found


@pytest.mark.parametrize(
    "line", ["def ring_again(): ...", "class DoorBell:", "# The chunk is put off.", "heldAtTheDoor"]
)
def test_a_private_word_is_found_in_names_and_prose(line: str) -> None:
    assert breaches("api/example.py", line)


def test_no_private_word_is_used() -> None:
    found = [breach for path, text in texts() for breach in breaches(path, text)]
    assert found == [], "\n".join(found)


def test_no_module_or_class_has_a_name_that_says_nothing() -> None:
    names = [
        (path, name)
        for path, text in texts()
        if path.endswith(".py")
        for name in (Path(path).stem, *re.findall(r"^class _?(\w+)", text, re.MULTILINE))
    ]
    assert [(path, name) for path, name in names if name.lower() in NAMES] == []


def test_every_exception_is_needed() -> None:
    sources = dict(texts())
    for part, word, reason in ALLOWED:
        assert reason
        assert any(
            part in path and word in words_of(text).lower() for path, text in sources.items()
        )
