"""Reading server-sent events, as the standard says they are written."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2


@dataclass(frozen=True)
class Event:
    """One event; a comment has nothing but `comment`."""

    name: str | None = None
    id: str | None = None
    body: Any = None
    comment: str | None = None


def read_events(answer: httpx2.Response) -> Iterator[Event]:
    """Give the events and comments of a stream as they arrive."""
    assert answer.status_code == 200, answer.read()
    assert answer.headers["content-type"].startswith("text/event-stream")
    fields: dict[str, str] = {}
    for line in answer.iter_lines():
        if line:
            field, _, value = line.partition(":")
            fields[field] = value.removeprefix(" ")
            continue
        if "" in fields:
            yield Event(comment=fields[""])
        else:
            yield Event(fields["event"], fields["id"], json.loads(fields["data"]))
        fields = {}
