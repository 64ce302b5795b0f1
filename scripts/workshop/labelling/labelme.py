"""Converts the files of `labelme . --flags labels.txt` to a table of labels and back."""

import json
from codecs import BOM_UTF8
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from pydantic import BaseModel, ConfigDict, StrictBool, ValidationError

from model.images.decode import decode
from model.images.result import ImageRejected
from piqueue.commands.progress import tell
from piqueue.commands.terminal import CommandFailed, ExitCode, written_whole
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


def from_labelme(folder: Path, table: Path, *, replace: bool) -> int:
    """Import the flags of all files in `folder` and its subfolders into a table.

    Without `replace`, the answers in the table are kept. Returns the exit code.

    Raises:
        CommandFailed: a file is invalid; the message lists up to ten.
    """
    if not folder.is_dir():
        raise CommandFailed(f"{folder} does not exist: correct the path")
    flags: dict[str, dict[str, bool]] = {}
    sources: dict[str, Path] = {}
    problems: list[str] = []
    for file in sorted(folder.rglob("*.json")):
        try:
            annotation = _read(file)
            name = _picture_name(file, annotation.imagePath, folder)
            if name in flags:
                raise CommandFailed(f"{file}: {sources[name]} has the same picture: remove one")
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
        raise CommandFailed(
            f"{folder}: there is no file of labelme with flags: "
            "open the pictures with labelme --flags"
        )
    labelled = (LabelTable.open if table.exists() else LabelTable.create)(table, labels)
    kept = {name: of for name, of in flags.items() if not of.get(IGNORE)}
    contradicted: list[str] = []
    for name, of in kept.items():
        found, known = frozenset(label for label in labels if of[label]), labelled.get(name)
        contradicts = known is not None and (
            labelled.is_left_out(name) or bool((found ^ known) - labelled.guessed(name))
        )
        if contradicts and not replace:
            contradicted.append(name)
        elif contradicts or found != known:  # an unchanged guess stays a guess
            labelled.answer(name, found)
    contradicted += labelled.save()
    print(f"{table}: {len(kept)} pictures with {', '.join(labels)}")
    return _report_kept(table, contradicted)


def to_labelme(table: Path, folder: Path, *, replace: bool) -> int:
    """Write a file for each row beside its picture; the shapes of existing files are preserved.

    Without `replace`, so are their flags. Returns the exit code.

    Raises:
        CommandFailed: a picture or file is invalid, and nothing is written; it lists up to ten.
    """
    labelled = LabelTable.open(table)
    files: dict[Path, dict[str, Any]] = {}
    contradicted: list[str] = []
    problems: list[str] = []
    for name in labelled.rows:
        if labelled.is_left_out(name):
            continue
        file = (folder / name).with_suffix(".json")
        if file in files:
            problems.append(f"{file}: belongs to {name} and to another picture: rename one")
            continue
        try:
            content = _annotation(folder / name, file)
            labels = labelled.get(name) or frozenset()
            flags = {label: label in labels for label in labelled.labels}
            known = {label: content["flags"].get(label, flags[label]) for label in flags}
            if known != flags and not replace:
                contradicted.append(name)
                flags = known
            content["flags"] |= flags
            files[file] = content
        except CommandFailed as error:
            problems.append(str(error))
    _stop_if(problems)
    for file, content in files.items():
        with written_whole(file) as target:
            target.write(json.dumps(content, ensure_ascii=False, indent=2).encode())
    _add_flags(folder / FLAGS_FILE, labelled.labels)
    print(f"{folder}: {len(files)} files; labelme {folder} --flags {folder / FLAGS_FILE}")
    return _report_kept(folder, contradicted)


def _add_flags(file: Path, labels: Sequence[str]) -> None:
    """Add the labels that the file lacks; it may have flags of its own."""
    before = file.read_text(encoding="utf-8-sig").splitlines() if file.exists() else []
    lines = dict.fromkeys((*before, *labels))
    with written_whole(file) as target:
        target.write("".join(f"{line}\n" for line in lines).encode())


def _annotation(picture: Path, file: Path) -> dict[str, Any]:
    """The content of a picture's file, or else of a new one."""
    try:
        image = decode(picture.read_bytes())
    except FileNotFoundError:
        raise CommandFailed(
            f"{picture} does not exist: copy it there, or remove its row from the table"
        ) from None
    except (OSError, ImageRejected) as error:
        raise CommandFailed(f"{picture} cannot be read ({error}): replace it") from None
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
    return content


def _read(file: Path) -> _Annotation:
    try:
        return _Annotation.model_validate_json(file.read_bytes().removeprefix(BOM_UTF8))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise CommandFailed(
            f"{file} is not a file of labelme ({f'{where}: ' if where else ''}{first['msg']}): "
            "remove it"
        ) from None


def _picture_name(file: Path, image_path: str, folder: Path) -> str:
    """The path of the picture below `folder`; labelme writes it relative to the file."""
    picture = (file.parent / PureWindowsPath(image_path).as_posix()).resolve()
    try:
        return picture.relative_to(folder.resolve()).as_posix()
    except ValueError:
        raise CommandFailed(
            f"{file}: its picture {image_path} is not in {folder}: give the folder of both"
        ) from None


def _report_kept(where: Path, names: Sequence[str]) -> int:
    """Print which pictures have kept the answers that `where` had; returns the exit code."""
    if not names:
        return ExitCode.ALL_SUCCEEDED
    tell(
        f"{len(names)} pictures have other labels in {where}, which are kept "
        "(--replace replaces them):"
    )
    for name in (*names[:_LISTED], *["…"] * (len(names) > _LISTED)):
        tell(f"  {name}")
    return ExitCode.SOME_FAILED


def _stop_if(problems: Sequence[str]) -> None:
    if problems:
        more = [f"and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else []
        raise CommandFailed("\n  ".join(["nothing was written:", *problems[:_LISTED], *more]))
