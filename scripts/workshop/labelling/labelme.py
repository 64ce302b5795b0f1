"""Labels of labelme, as `labelme . --flags labels.txt` writes them, to the table and back."""

import json
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from pydantic import BaseModel, ConfigDict, StrictBool, ValidationError

from model.images.decode import decode
from model.images.result import ImageRejected
from piqueue.commands.terminal import CommandFailed, written_whole
from scripts.workshop.label_table import LabelTable

# The version of the format that labelme 5 reads without a word.
VERSION = "5.5.0"
FLAGS_FILE = "labels.txt"
# In labelme's own flag files, for pictures that are no part of the set.
IGNORE = "__ignore__"
_LISTED = 10


class _Annotation(BaseModel):
    """A file of labelme; what is not named here is kept as it is."""

    model_config = ConfigDict(extra="allow")

    flags: dict[str, StrictBool]
    imagePath: str  # noqa: N815 - labelme's name


def from_labelme(folder: Path, path: Path) -> None:
    """Put the flags of all files in `folder` and below it into the table at `path`.

    Raises:
        CommandFailed: names every file that is not right.
    """
    if not folder.is_dir():
        raise CommandFailed(f"{folder}: there is no such folder")
    flags: dict[str, dict[str, bool]] = {}
    sources: dict[str, Path] = {}
    wrong: list[str] = []
    for file in sorted(folder.rglob("*.json")):
        try:
            annotation = _read(file)
            name = _picture_name(file, annotation.imagePath, folder)
            if name in flags:
                raise CommandFailed(f"{file}: {sources[name]} is of the same picture")
        except CommandFailed as error:
            wrong.append(str(error))
            continue
        flags[name], sources[name] = annotation.flags, file
    labels = list(dict.fromkeys(flag for of in flags.values() for flag in of if flag != IGNORE))
    for name, of in flags.items():
        if missing := [label for label in labels if label not in of]:
            wrong.append(
                f"{sources[name]}: lacks the flags {', '.join(missing)}, which others have: "
                f"open it once more with labelme --flags {FLAGS_FILE}"
            )
    _stop_if(wrong)
    if not labels:
        raise CommandFailed(f"{folder}: no file of labelme with flags there")
    table = LabelTable.open(path, labels) if path.exists() else LabelTable.begin(path, labels)
    kept = {name: of for name, of in flags.items() if not of.get(IGNORE)}
    for name, of in kept.items():
        found = frozenset(label for label in labels if of[label])
        if found != table.get(name):  # else a guess may be one still
            table.put(name, found)
    table.save()
    print(f"{path}: {len(kept)} pictures with {', '.join(labels)}")


def to_labelme(path: Path, folder: Path) -> None:
    """Write a file for each row beside its picture; shapes in those that are there stay.

    Raises:
        CommandFailed: names every picture and file that is not right; nothing is written.
    """
    table = LabelTable.open(path)
    files: dict[Path, dict[str, Any]] = {}
    wrong: list[str] = []
    for name in table.rows:
        file = (folder / name).with_suffix(".json")
        if file in files:
            wrong.append(f"{file}: would be of {name} and of another picture: rename one")
            continue
        try:
            files[file] = _annotation(table, name, folder / name, file)
        except CommandFailed as error:
            wrong.append(str(error))
    _stop_if(wrong)
    for file, content in files.items():
        with written_whole(file) as target:
            target.write(json.dumps(content, ensure_ascii=False, indent=2).encode())
    (folder / FLAGS_FILE).write_text("".join(f"{label}\n" for label in table.labels))
    print(f"{folder}: {len(files)} files; labelme {folder} --flags {folder / FLAGS_FILE}")


def _annotation(table: LabelTable, name: str, picture: Path, file: Path) -> dict[str, Any]:
    """The content of a file: what it holds by now, with the flags of the table."""
    try:
        image = decode(picture.read_bytes())
    except FileNotFoundError:
        raise CommandFailed(f"{picture}: there is no such picture") from None
    except (OSError, ImageRejected) as error:
        raise CommandFailed(f"{picture}: {error}") from None
    content: dict[str, Any] = {
        "version": VERSION,
        "flags": {},
        "shapes": [],
        "imagePath": picture.name,
        "imageData": None,
        "imageHeight": image.height,
        "imageWidth": image.width,
    }
    if file.exists():
        content |= _read(file).model_dump()
    labels = table.get(name) or frozenset()
    content["flags"] = content["flags"] | {label: label in labels for label in table.labels}
    return content


def _read(file: Path) -> _Annotation:
    try:
        return _Annotation.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise CommandFailed(
            f"{file} is no file of labelme: {f'{where}: ' if where else ''}{first['msg']}"
        ) from None


def _picture_name(file: Path, image_path: str, folder: Path) -> str:
    """The picture's path below `folder`; labelme writes it relative to the file."""
    picture = (file.parent / PureWindowsPath(image_path).as_posix()).resolve()
    try:
        return picture.relative_to(folder.resolve()).as_posix()
    except ValueError:
        raise CommandFailed(f"{file}: its picture {image_path} is not in {folder}") from None


def _stop_if(wrong: Sequence[str]) -> None:
    if wrong:
        more = [f"and {len(wrong) - _LISTED} more"] if len(wrong) > _LISTED else []
        raise CommandFailed("\n  ".join(["nothing was written:", *wrong[:_LISTED], *more]))
