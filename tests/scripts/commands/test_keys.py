"""piqueue keys, on a running Piqueue."""

import re
from pathlib import Path

import httpx2
import pytest

from piqueue import cli
from scripts.commands.__main__ import main
from scripts.local.stack import Stack
from tests.conftest import STACK_ENV
from tests.pictures import jpeg
from tests.scripts.processes import eventually


def test_keys_are_created_used_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "1.jpg"
    picture.write_bytes(jpeg(1))
    with Stack(tmp_path / "stack", env=STACK_ENV) as stack:
        monkeypatch.setenv("PIQUEUE_REDIS_URL", stack.redis_url)
        monkeypatch.setenv("PIQUEUE_URL", stack.url)
        assert main(["keys", "add", "Alice B."]) == 0
        key, told = capsys.readouterr()
        assert re.fullmatch(r"pq_[\w-]{43}\n", key)
        assert "shown only once" in told
        main(["keys", "list"])
        listed = re.fullmatch(r"(\w+)  Alice B\.\n", capsys.readouterr().out)
        assert listed
        # For a second the API takes it that there are no keys.
        assert eventually(lambda: httpx2.get(f"{stack.url}/jobs").status_code == 401)
        assert cli.main(["submit", str(picture)]) == 1
        assert "this API needs a key" in capsys.readouterr().err
        monkeypatch.setenv("PIQUEUE_API_KEY", key.strip())
        assert cli.main(["submit", str(picture)]) == 0
        assert main(["keys", "remove", listed[1]]) == 0
        capsys.readouterr()
        assert main(["keys", "list"]) == 0
        assert capsys.readouterr().out == ""
        assert cli.main(["jobs"]) == 1
        assert "this API key is not known" in capsys.readouterr().err
        assert main(["keys", "remove", "nobody"]) == 1
        assert capsys.readouterr().err.startswith("piqueue keys remove: there is no owner nobody")


def test_redis_that_does_not_answer_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIQUEUE_REDIS_URL", "redis://127.0.0.1:1/0")
    assert main(["keys", "list"]) == 1
    said = capsys.readouterr().err
    assert (said.startswith("piqueue keys: "), said.count("\n")) == (True, 1)


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["keys", "--help"])
    assert "  piqueue keys add " in capsys.readouterr().out
