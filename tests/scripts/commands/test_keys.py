"""piqueue keys, on a running Piqueue."""

import json
import re
from pathlib import Path

import httpx2
import pytest
from redis import Redis

from piqueue import cli
from scripts.commands.__main__ import main
from scripts.local.stack import Stack
from tests.conftest import STACK_ENV
from tests.pictures import jpeg
from tests.scripts.processes import eventually
from worker.jobs.ledger.api_keys import KeyStore, Scope


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
        assert "first key: from now on, every request needs one" in told
        main(["keys", "list"])
        head, row = capsys.readouterr().out.splitlines()
        assert head.split("  ")[0] == "owner"
        assert re.fullmatch(r"\w{12}  Alice B\.  submit  1       never      never", row)
        # For a second the API takes it that there are no keys.
        assert eventually(lambda: httpx2.get(f"{stack.url}/jobs").status_code == 401)
        assert cli.main(["submit", str(picture)]) == 1
        assert "this API needs a key: set PIQUEUE_API_KEY to yours" in capsys.readouterr().err
        monkeypatch.setenv("PIQUEUE_API_KEY", key.strip())
        assert cli.main(["submit", str(picture)]) == 0
        assert main(["keys", "rotate", "Alice B."]) == 0
        assert cli.main(["jobs"]) == 0, "the earlier key is valid until the overlap ends"
        capsys.readouterr()
        assert main(["keys", "rotate", "Alice B.", "--overlap", "0s"]) == 0
        renewed = capsys.readouterr().out.strip()
        assert cli.main(["jobs"]) == 1
        assert "this API key expired on" in capsys.readouterr().err
        monkeypatch.setenv("PIQUEUE_API_KEY", renewed)
        assert cli.main(["jobs"]) == 0
        assert "1 of 1 succeeded" in capsys.readouterr().out, "its jobs stay its own"

        def listed() -> list[str]:
            assert main(["keys", "list"]) == 0
            return capsys.readouterr().out.splitlines()[1:]

        # The API records the use of a key after its answer.
        assert eventually(lambda: "  never  " not in listed()[0])
        new, *_, old = listed()
        assert main(["keys", "list", "--json"]) == 0
        first, *_ = json.loads(capsys.readouterr().out)
        assert new.startswith(first["owner"])
        assert (first["name"], first["expired"], first["expires_at"]) == ("Alice B.", False, None)
        assert re.search(r"  20\d\d-\d\d-\d\d \d\d:\d\dZ  never$", new)
        assert re.search(r"Z  20\d\d-\d\d-\d\d \d\d:\d\dZ \(expired\)$", old)
        assert main(["keys", "add", "Bob"]) == 0
        assert "first key" not in capsys.readouterr().err
        assert main(["keys", "remove", "Bob"]) == 0
        assert capsys.readouterr().err == ""
        assert main(["keys", "remove", "Alice B."]) == 0
        assert "last key: an API on a loopback address" in capsys.readouterr().err
        assert main(["keys", "list"]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "owner  name  scopes  weight  last used  expires"
        ]
        assert cli.main(["jobs"]) == 1
        assert "this API key is not known" in capsys.readouterr().err
        assert main(["keys", "remove", "nobody"]) == 1
        assert capsys.readouterr().err.startswith(
            "piqueue keys remove: there is no key named nobody"
        )


@pytest.fixture
def keys(redis_client: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> KeyStore:
    """The keys that the command makes."""
    monkeypatch.setenv("PIQUEUE_REDIS_URL", redis_url)
    return KeyStore(redis_client)


def test_a_key_gets_the_scopes_weight_and_lifetime_that_are_given(
    keys: KeyStore, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--scope", "metrics", "--scope", "read", "--weight", "2", "--expires-in", "90d"]
    assert main(["keys", "add", "import", *options]) == 0
    added = keys.find(capsys.readouterr().out.strip())
    assert added.scopes == (Scope.METRICS, Scope.READ)
    assert added.created_ms
    assert added.expires_ms == added.created_ms + 90 * 86_400_000
    assert main(["keys", "weigh", added.owner, "7"]) == 0
    assert [key.weight for key in keys.all()] == [7]
    assert main(["keys", "list"]) == 0
    assert re.search(r"  import  metrics,read  7  .*  never +20\d\d-", capsys.readouterr().out)


def test_a_name_stands_for_one_owner(keys: KeyStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "add", "alice"]) == 0
    assert main(["keys", "add", "alice"]) == 1
    assert "there is a key named alice already" in capsys.readouterr().err
    keys.add("alice")  # as an earlier version did
    assert main(["keys", "rotate", "alice"]) == 1
    assert "several owners are named alice: give one of" in capsys.readouterr().err
    assert main(["keys", "remove", keys.all()[0].owner]) == 0
    assert len(keys.all()) == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["add", "a\nb"], "must have 1 to 64 printable characters"),
        (["add", ""], "must have 1 to 64 printable characters"),
        (["add", "a", "--weight", "0"], "must be a whole number from 1 to 100"),
        (["add", "a", "--weight", "1.5"], "must be a whole number from 1 to 100"),
        (["add", "a", "--expires-in", "90"], "must be a number and a unit"),
        (["add", "a", "--expires-in", "0d"], "must be longer than 0"),
        (["add", "a", "--scope", "admin"], "there is no 'admin': choose from read, submit"),
    ],
)
def test_an_invalid_option_is_refused(
    keys: KeyStore, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="64"):
        main(["keys", *arguments])
    assert told in capsys.readouterr().err
    assert not keys.exist()


def test_redis_that_does_not_answer_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIQUEUE_REDIS_URL", "redis://127.0.0.1:1/0")
    assert main(["keys", "list"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("piqueue keys list: Redis does not answer (")
    assert "at 127.0.0.1:1: start it, or set PIQUEUE_REDIS_URL to" in said
    assert said.count("\n") == 1


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["keys", "--help"])
    assert "  piqueue keys add " in capsys.readouterr().out
