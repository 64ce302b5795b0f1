"""The piqueue command: its subcommands, and how it finds those of the server."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from piqueue import cli
from scripts.commands.__main__ import MODULES
from scripts.commands.__main__ import main as server_main
from scripts.local.stack import ROOT
from tests.browser import unavailable
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
    for main, command, wrong, near in (
        (cli.main, "submit", "--modell=scenes", "--model"),
        (server_main, "train", "--presett", "--preset"),
    ):
        with pytest.raises(SystemExit):
            main([command, "photos", wrong])
        assert f"{wrong} (did you mean {near}?)\n" in capsys.readouterr().err


# What each shell does when Tab is pressed, without a terminal: prints a completion a line, with
# its description after a colon or tab.
COMPLETE = {
    "bash": 'eval "$(piqueue completion bash)"\n'
    "COMP_WORDS=(TYPED); COMP_LINE='TYPED'; COMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n"
    "COMP_POINT=${#COMP_LINE}; COMP_TYPE=9\n"
    "_python_argcomplete piqueue; printf '%s\\n' \"${COMPREPLY[@]}\"",
    "zsh": 'eval "$(piqueue completion zsh)"; print -- $_comps[piqueue]\n'
    '_describe() { print -rl -- "${completions[@]}" }\n'
    "words=(TYPED); BUFFER='TYPED'; CURSOR=${#BUFFER}; _python_argcomplete",
    "fish": "piqueue completion fish | source; complete -C 'TYPED'",
}


@pytest.mark.parametrize("name", COMPLETE)
def test_a_shell_completes_commands_and_options(name: str, tmp_path: Path) -> None:
    if shutil.which(name) is None:
        unavailable(f"the completion for {name}, which is missing: apt-get install {name}")
    start = [name, "-f", "-c"] if name == "zsh" else [name, "-c"]
    shell = Shell(tmp_path, {"HOME": str(tmp_path)})
    for words, expected in (
        ("re", "report rescore results retry review"),
        ("results --a", "--api-key --above"),
    ):
        line = COMPLETE[name].replace("TYPED", f"piqueue {words}")
        printed = shell.run(shlex.join([*start, line])).splitlines()
        if name == "zsh":
            assert printed.pop(0) == "_python_argcomplete"
        found = [re.split("[:\t]", one)[0].strip() for one in printed]
        assert sorted(found) == sorted(expected.split())


def test_completion_needs_a_library(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
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
        [sys.executable, "-P", "-m", "piqueue", "labels", "split", "nowhere.csv"],
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


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("http://127.0.0.1:9", "start Piqueue with `piqueue serve` (in a clone: `scripts/serve`)"),
        ("http://127.0.0.2:9", "check that Piqueue runs there"),
    ],
)
def test_without_a_server_the_message_says_what_to_do(
    url: str, advice: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("piqueue.connection.FIRST_CONTACT_S", 0.5)
    assert cli.main(["jobs", "--url", url]) == 1
    waiting, failed = capsys.readouterr().err.splitlines()
    assert waiting.startswith(f"waiting for the API: no answer from {url} (")
    assert failed.startswith(f"piqueue jobs: no answer from {url} (")
    for line in (waiting, failed):
        assert line.endswith(f"): {advice}, or give its address with --url or PIQUEUE_URL")
