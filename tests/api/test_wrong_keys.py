"""Wrong keys are counted by address, in bounded memory."""

import pytest

from api import wrong_keys
from api.wrong_keys import MOST_IN_WINDOW, WrongKeys
from tests.scripts.processes import eventually


def test_an_address_waits_after_too_many_wrong_keys() -> None:
    wrong = WrongKeys()
    assert [wrong.count("192.0.2.1") for _ in range(MOST_IN_WINDOW)] == [0] * MOST_IN_WINDOW
    assert 0 < wrong.count("192.0.2.1") <= 60
    assert wrong.count("192.0.2.2") == 0


def test_the_addresses_of_one_ipv6_network_are_one_sender() -> None:
    wrong = WrongKeys()
    waits = [wrong.count(f"2001:db8::{at:x}") for at in range(MOST_IN_WINDOW + 1)]
    assert [wait > 0 for wait in waits] == [False] * MOST_IN_WINDOW + [True]
    assert wrong.count("2001:db8:0:1::1") == 0


def test_a_new_minute_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrong_keys, "WINDOW_S", 0.2)
    wrong = WrongKeys()
    for _ in range(MOST_IN_WINDOW):
        wrong.count("192.0.2.1")
    assert eventually(lambda: wrong.count("192.0.2.1") == 0)


def test_as_many_addresses_are_remembered_as_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrong_keys, "MOST_ADDRESSES", 10)
    wrong = WrongKeys()
    for _ in range(MOST_IN_WINDOW):
        for at in range(9):
            wrong.count(f"192.0.2.{at}")
        wrong.count("")  # a request without an address
    assert all(wrong.count(f"192.0.2.{at}") for at in range(9))
    for at in range(1000):
        wrong.count(f"198.51.100.{at}")
    assert len(wrong._sent) == 10
    assert wrong.count("192.0.2.1") == 0
