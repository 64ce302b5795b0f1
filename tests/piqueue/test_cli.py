"""The piqueue command: its subcommands, and how it finds those of the server."""

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from piqueue import cli
from scripts.commands.__main__ import MODULES
from scripts.local.stack import ROOT
from tests.documents import Shell


def test_the_server_has_a_module_for_each_of_its_commands(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.SERVER_COMMANDS.keys() == MODULES.keys()
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    shown = capsys.readouterr().out
    titles = ["score pictures", "label pictures", "make models", "run the service", "use the shell"]
    assert re.findall(r"^([a-z ]+):$", shown, re.M)[:5] == titles
    assert "  piqueue submit photos.csv -o results.xlsx\n" in shown
    for name, about in cli.SERVER_COMMANDS.items():
        assert f"\n  {name} " in shown
        assert about[:40] in shown
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"piqueue {version('piqueue')}\n")
    with pytest.raises(SystemExit) as ended:
        cli.main(["jobs", "--limit", "many"])
    assert ended.value.code == 64
    assert "invalid int value: 'many'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["sbmit"])
    assert "there is no 'sbmit': did you mean submit?" in capsys.readouterr().err


def test_bash_completes_commands_and_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = Shell(tmp_path)
    for words, expected in (
        ("re", "report rescore results retry review"),
        ("results --a", "--api-key --above"),
    ):
        line = f"piqueue {words}"
        printed = shell.run(
            f'eval "$(piqueue completion bash)"; COMP_WORDS=({line}); COMP_LINE="{line}"\n'
            f"COMP_CWORD={len(words.split())}; COMP_POINT={len(line)}; COMP_TYPE=9\n"
            '_python_argcomplete piqueue; echo "${COMPREPLY[@]}"'
        )
        assert sorted(printed.split()) == sorted(expected.split())
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    monkeypatch.delitem(sys.modules, "argcomplete.shell_integration", raising=False)
    assert cli.main(["completion", "bash"]) == 1
    assert "pip install 'piqueue[completion]'" in capsys.readouterr().err


def test_a_command_of_the_server_is_not_shadowed_by_the_current_folder(tmp_path: Path) -> None:
    for name in ("api", "model", "scripts", "worker"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('the wrong one')\n")
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    answer = subprocess.run(
        [sys.executable, "-P", "-m", "piqueue.cli", "labels", "split", "nowhere.csv"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
    )
    assert answer.stderr.startswith("piqueue labels: nowhere.csv")


def test_without_the_server_its_commands_say_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "piqueue" / "cli.py"))
    monkeypatch.setattr(cli, "find_spec", lambda _name: None)
    assert cli.main(["serve"]) == 1
    said = capsys.readouterr().err
    assert said == "piqueue serve: it needs the server: pip install 'piqueue-server[local]'\n"
