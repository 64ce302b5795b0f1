"""Builds the documentation site of the Markdown files, the OpenAPI document and the help texts."""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from importlib.resources import files
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import piqueue
from api.main import create_app
from piqueue import cli
from scripts.commands.__main__ import main as server_command
from scripts.local.stack import ROOT
from worker.jobs.settings import load_settings

CONFIG = ROOT / "docs" / "zensical.toml"
# Folders whose Markdown files are pages; those of others are for readers of the code.
FOLDERS = (".", "docs", "docs/decisions")
_LINK = re.compile(r"\[([^\]]+)\]\(([^)#:]+)(#[^)]*)?\)")
_SWAGGER = ("swagger-ui-bundle.js", "swagger-ui.css")
_HTTP_API = """# HTTP API

[openapi.json](openapi.json) is the OpenAPI document; generators make clients of it.

<link rel="stylesheet" href="swagger-ui.css">
<div id="swagger-ui" style="background: #fff"></div>
<script src="swagger-ui-bundle.js"></script>
<script>
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  defaultModelsExpandDepth: 0,
  supportedSubmitMethods: []
})
</script>
"""


def write_pages(folder: Path) -> None:
    """Write the configuration and the pages of the site to an empty folder."""
    shutil.copy(CONFIG, folder)
    pages = folder / "pages"
    shutil.copytree(ROOT / "docs" / "images", pages / "docs" / "images")
    found = [path for each in FOLDERS for path in sorted((ROOT / each).glob("*.md"))]
    for path in found:
        name = str(path.relative_to(ROOT))
        target = pages / ("index.md" if name == "README.md" else name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_without_links_to_files(path))
    reference = pages / "reference"
    reference.mkdir()
    (reference / "http-api.md").write_text(_HTTP_API)
    document = create_app(load_settings()).openapi()
    (reference / "openapi.json").write_text(json.dumps(document))
    for asset in _SWAGGER:
        (reference / asset).write_bytes((files("fastapi_offline") / "static" / asset).read_bytes())
    (reference / "client.md").write_text(_client())
    (reference / "commands.md").write_text(_commands())


def build(folder: Path) -> Path:
    """Build the site in an empty folder; returns the folder of its HTML files.

    Raises:
        SystemExit: a link or a name of a page is wrong; the builder has said which.
    """
    write_pages(folder)
    _zensical(folder, "build", "--strict")
    return folder / "site"


def serve(folder: Path) -> None:
    """Serve the site on this machine until Ctrl-C."""
    write_pages(folder)
    _zensical(folder, "serve")


def _zensical(folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "zensical", *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    if code := subprocess.run(command, cwd=folder, env=env).returncode:
        raise SystemExit(code)


def _without_links_to_files(path: Path) -> str:
    """The text of a Markdown file; links to what is no page of the site become plain text."""

    def replace(found: re.Match[str]) -> str:
        text, target, _ = found.groups()
        linked = (path.parent / target).resolve()
        is_page = linked.suffix == ".md" and str(linked.parent.relative_to(ROOT)) in FOLDERS
        return found[0] if is_page or linked.suffix == ".png" else text

    return _LINK.sub(replace, path.read_text())


def _client() -> str:
    """One entry for each name that `import piqueue` offers, the client first."""
    names = sorted(piqueue.__all__, key=lambda name: (name != "Client", name))
    entries = [f"::: piqueue.{name}\n" for name in names]
    entries[names.index("AsyncClient")] += "    options:\n      inherited_members: false\n"
    return f"# Python client\n\n{piqueue.__doc__}\n\n" + "\n".join(entries)


def _commands() -> str:
    """The help of the command, of its subcommands and of theirs."""
    return "# Commands\n\n" + "".join(_helps(()))


def _helps(command: tuple[str, ...]) -> Iterator[str]:
    run = server_command if command[:1] and command[0] in cli.SERVER_COMMANDS else cli.main
    printed = StringIO()
    with suppress(SystemExit), redirect_stdout(printed):
        run([*command, "--help"])
    text = printed.getvalue()
    yield f"## {' '.join(('piqueue', *command))}\n\n```text\n{text}```\n\n"
    names = (
        re.findall(r"^(?:  |    )([a-z][\w-]*)(?:  |$)", text, re.MULTILINE)
        if " ...\n" in text
        else []
    )
    for name in names:
        yield from _helps((*command, name))


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="scripts/docs", description=__doc__)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--build", type=Path, metavar="FOLDER", help="write the site to a new FOLDER")
    how.add_argument("--check", action="store_true", help="build it and say what is wrong")
    given = parser.parse_args()
    if given.build and given.build.exists():
        parser.error(f"{given.build} exists: name a new folder")
    os.environ["COLUMNS"] = "90"  # the width of help texts
    with TemporaryDirectory(prefix="piqueue-docs-") as folder:
        if given.build:
            shutil.copytree(build(Path(folder)), given.build)
        elif given.check:
            build(Path(folder))
        else:
            serve(Path(folder))


if __name__ == "__main__":
    main()
