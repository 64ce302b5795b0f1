"""The blocks of the documents for Docker, run twice without Docker: what a user has stays."""

import os
import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from scripts.local.stack import ROOT
from tests.documents import Block, Shell, block_of, blocks

# Runs `tar` as `docker run` does, with the folders `volume` and `.` in place of the mounts.
# It has a Redis that rewrites no file; other commands do nothing.
DOCKER = """#!/usr/bin/env python
import os, subprocess, sys

if "INFO" in sys.argv:
    print("aof_rewrite_in_progress:0")
if "tar" in sys.argv:
    command = sys.argv[sys.argv.index("tar") :]
    os.makedirs("volume", exist_ok=True)
    places = (("/backup", "."), ("/data", "volume"))
    for mount, folder in places:
        command = [word.replace(mount, folder) for word in command]
    sys.exit(subprocess.run(command).returncode)
"""


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A shell in which `docker`, `curl` and `date` say what a test needs."""
    shell = Shell(tmp_path)
    seconds = tmp_path / "seconds"
    seconds.write_text("0")
    programs = {
        "docker": DOCKER,
        "curl": "#!/bin/sh\n",
        "date": f"#!/bin/sh\necho x >> {seconds}; wc -l < {seconds}\n",
    }
    for name, text in programs.items():
        program = tmp_path / "bin" / name
        program.write_text(text)
        program.chmod(0o755)
    return shell


SETTINGS = {
    "README": block_of("README.md", "cp .env.example .env"),
    "OPERATIONS": block_of("OPERATIONS.md", "cp .env.example .env"),
}


@pytest.mark.parametrize("block", SETTINGS.values(), ids=SETTINGS)
def test_the_settings_of_a_user_stay(shell: Shell, block: Block) -> None:
    examples = (".env", "piqueue.env")
    for name in examples:
        shutil.copy(ROOT / f"{name}.example", shell.folder)
    shell.run(block)
    for name in examples:
        file = shell.folder / name
        assert file.read_bytes() == (ROOT / f"{name}.example").read_bytes()
        file.write_text("REDIS_PASSWORD=mine\n")
    shell.run(block)
    for name in examples:
        assert (shell.folder / name).read_text() == "REDIS_PASSWORD=mine\n"


def test_pinned_images_stay_while_the_registries_do_not_answer(shell: Shell) -> None:
    program = shell.folder / "scripts" / "pin_images"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho services\n")
    program.chmod(0o755)
    [pin, *_] = block_of("OPERATIONS.md", "scripts/pin_images").text.splitlines()
    shell.run(pin)
    program.write_text("#!/bin/sh\nexit 1\n")
    shell.run(pin, code=1)
    assert (shell.folder / "pinned.yml").read_text() == "services\n"


def test_a_backup_replaces_no_other_and_a_restore_no_data(shell: Shell) -> None:
    files = shell.folder / "volume" / "appendonlydir"
    files.mkdir(parents=True)
    backup, restore = block_of("OPERATIONS.md", "CONFIG SET"), block_of("OPERATIONS.md", "tar xzkf")
    for data in ("first", "second"):
        (files / "appendonly.aof.manifest").write_text(data)
        shell.run(backup)
    copies = sorted(shell.folder.glob("redis-*.tgz"))
    assert len(copies) == 2

    shutil.rmtree(files.parent)
    of_first = Block("", restore.text.replace("redis-20261127-120000.tgz", copies[0].name))
    assert of_first != restore
    shell.run(of_first)
    assert (files / "appendonly.aof.manifest").read_text() == "first"
    (files / "appendonly.aof.manifest").write_text("later")
    assert "File exists" in shell.run(of_first, code=2)
    assert (files / "appendonly.aof.manifest").read_text() == "later"


COMMANDS = [
    line
    for document in ("README.md", "OPERATIONS.md")
    for block in blocks(document)
    for line in block.text.replace("\\\n", "").splitlines()
    if "docker " in line
]


def test_a_backup_succeeds_while_redis_writes(shell: Shell) -> None:
    file = shell.folder / "volume" / "appendonlydir" / "appendonly.aof.1.incr.aof"
    file.parent.mkdir(parents=True)
    file.write_bytes(os.urandom(4_000_000))
    ended = threading.Event()

    def write() -> None:
        with file.open("ab") as end:
            while not ended.wait(0.001):
                end.write(b"x")
                end.flush()

    with ThreadPoolExecutor() as pool:
        writing = pool.submit(write)
        try:
            shell.run(block_of("OPERATIONS.md", "CONFIG SET"))
        finally:
            ended.set()
        writing.result()
    assert len(list(shell.folder.glob("redis-*.tgz"))) == 1


def test_git_leaves_alone_what_the_documents_write(shell: Shell) -> None:
    shutil.copy(ROOT / ".gitignore", shell.folder)
    for name in (".env", "piqueue.env", "pinned.yml", "redis-1.tgz", "models/kinds/1/card.json"):
        (shell.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (shell.folder / name).touch()
    shutil.rmtree(shell.folder / "bin")
    listed = shell.run("git init -q && git status --porcelain --untracked-files=all")
    assert listed.splitlines() == ["?? .gitignore", "?? seconds"]


def test_one_container_keeps_its_data_in_a_named_volume() -> None:
    commands = [line for line in COMMANDS if re.search(r"docker run .* piqueue$", line)]
    assert len(commands) == 2
    assert all(" -v piqueue:/data " in line for line in commands)


def test_the_commands_of_compose_name_its_services_and_profiles() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    profiles = {name for one in services.values() for name in one.get("profiles", ())}
    text = "\n".join(line for line in COMMANDS if "docker compose " in line)
    assert set(re.findall(r"--profile (\S+)", text)) == profiles
    named = re.findall(r"(?:run --rm|exec -T|create)(?: -v \S+)? (\w+)|--scale (\w+)=", text)
    assert {"redis", "api", "worker"} <= {run or scaled for run, scaled in named} <= set(services)
