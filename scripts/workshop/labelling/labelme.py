"""Converts the files of `labelme . --flags labels.txt` to a table of labels and back."""

import json
from codecs import BOM_UTF8
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from pydantic import BaseModel, ConfigDict, StrictBool, ValidationError

from model.images.decode import decode
from model.images.result import ImageRejected
from piqueue.commands.terminal import CommandFailed, written_whole
from scripts.workshop.label_table import LabelTable

# labelme 5 reads this version of the format without a warning.
VERSION = "5.5.0"
FLAGS_FILE = "labels.txt"
# The flag of pictures to ignore in labelme's own examples.
IGNORE = "__ignore__"
_LISTED = 10


class _Annotation(BaseModel):
    """A file of labelme; other fields are preserved."""

    model_config = ConfigDict(extra="allow")

    flags: dict[str, StrictBool]
    imagePath: str  # noqa: N815 - labelme's name


def from_labelme(folder: Path, table: Path) -> None:
    """Import the flags of all files in `folder` and its subfolders into a table.

    Raises:
        CommandFailed: a file is invalid; the message lists up to ten.
    """
    if not folder.is_dir():
        raise CommandFailed(f"{folder}: there is no such folder")
    flags: dict[str, dict[str, bool]] = {}
    sources: dict[str, Path] = {}
    problems: list[str] = []
    for file in sorted(folder.rglob("*.json")):
        try:
            annotation = _read(file)
            name = _picture_name(file, annotation.imagePath, folder)
            if name in flags:
                raise CommandFailed(f"{file}: {sources[name]} has the same picture")
        except CommandFailed as error:
            problems.append(str(error))
            continue
        flags[name], sources[name] = annotation.flags, file
    labels = list(dict.fromkeys(flag for of in flags.values() for flag in of if flag != IGNORE))
    for name, of in flags.items():
        if missing := [label for label in labels if label not in of]:
            problems.append(
                f"{sources[name]}: the flags {', '.join(missing)} of other files are missing: "
                f"open it again with labelme --flags {FLAGS_FILE}"
            )
    _stop_if(problems)
    if not labels:
        raise CommandFailed(f"{folder}: there is no file of labelme with flags")
    labelled = (LabelTable.open if table.exists() else LabelTable.create)(table, labels)
    kept = {name: of for name, of in flags.items() if not of.get(IGNORE)}
    for name, of in kept.items():
        found = frozenset(label for label in labels if of[label])
        if found != labelled.get(name):  # an unchanged guess stays a guess
            labelled.put(name, found)
    labelled.save()
    print(f"{table}: {len(kept)} pictures with {', '.join(labels)}")


def to_labelme(table: Path, folder: Path) -> None:
    """Write a file for each row beside its picture; the shapes of existing files are preserved.

    Raises:
        CommandFailed: a picture or file is invalid, and nothing is written; it lists up to ten.
    """
    labelled = LabelTable.open(table)
    files: dict[Path, dict[str, Any]] = {}
    problems: list[str] = []
    for name in labelled.rows:
        file = (folder / name).with_suffix(".json")
        if file in files:
            problems.append(f"{file}: belongs to {name} and to another picture: rename one")
            continue
        try:
            files[file] = _annotation(labelled, name, folder / name, file)
        except CommandFailed as error:
            problems.append(str(error))
    _stop_if(problems)
    for file, content in files.items():
        with written_whole(file) as target:
            target.write(json.dumps(content, ensure_ascii=False, indent=2).encode())
    flags = "".join(f"{label}\n" for label in labelled.labels)
    (folder / FLAGS_FILE).write_text(flags, encoding="utf-8")
    print(f"{folder}: {len(files)} files; labelme {folder} --flags {folder / FLAGS_FILE}")


def _annotation(table: LabelTable, name: str, picture: Path, file: Path) -> dict[str, Any]:
    """The content of a file: that of an existing one with the flags of the table."""
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
        return _Annotation.model_validate_json(file.read_bytes().removeprefix(BOM_UTF8))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise CommandFailed(
            f"{file} is not a file of labelme: {f'{where}: ' if where else ''}{first['msg']}"
        ) from None


def _picture_name(file: Path, image_path: str, folder: Path) -> str:
    """The path of the picture below `folder`; labelme writes it relative to the file."""
    picture = (file.parent / PureWindowsPath(image_path).as_posix()).resolve()
    try:
        return picture.relative_to(folder.resolve()).as_posix()
    except ValueError:
        raise CommandFailed(f"{file}: its picture {image_path} is not in {folder}") from None


def _stop_if(problems: Sequence[str]) -> None:
    if problems:
        more = [f"and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else []
        raise CommandFailed("\n  ".join(["nothing was written:", *problems[:_LISTED], *more]))
