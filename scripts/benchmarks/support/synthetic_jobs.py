"""Tables of any size, and synthetic results for their items, stored as workers store them."""

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scripts.benchmarks.support.connection import Connection
from worker.jobs.items import ImageFacts, ItemResult, Timings
from worker.jobs.ledger.claims import Claim
from worker.jobs.ledger.store import JobStore

_WORDS = (
    *("linen", "cotton", "oak", "brass", "summer", "winter", "blue", "green", "large", "small"),
    *("lamp", "chair", "table", "curtain", "basket", "mirror", "cushion", "set of two", "for"),
    *("garden", "kitchen", "with handle", "without", "lid", "and", "hand made"),
)
_LEASE_S = 60


def write_table(path: Path, rows: int) -> None:
    """Write a product CSV of 200 bytes a row: sku, url, title, category, price."""
    rng = random.Random(rows)  # noqa: S311
    with path.open("w") as table:
        table.write("sku,url,title,category,price\n")
        for row in range(rows):
            words = " ".join(rng.choices(_WORDS, k=9))
            table.write(
                f"SKU-{row:08d},http://pictures.example.com/catalogue/2026/{row % 97:02d}/"
                f"{rng.getrandbits(64):016x}/product-{row:08d}-front-1200x900.jpg,"
                f"{words},home/{rng.choice(_WORDS)},{rng.randrange(100, 99900) / 100}\n"
            )


def submit_table(connection: Connection, path: Path, **options: str) -> Any:
    """Submit a table of `write_table`; gives the job."""
    query = "&".join(f"{name}={value}" for name, value in {"id_column": "sku", **options}.items())
    with path.open("rb") as table:
        headers = {"Content-Type": "text/csv"}
        return connection.send("POST", f"/jobs?{query}", body=table, headers=headers)


def claim_all(store: JobStore) -> list[Claim]:
    """Claim every chunk that waits."""
    claims: list[Claim] = []
    while claimed := store.claim_next(_LEASE_S, bulk_share=0.5):
        claims += claimed
    return claims


def score_all(store: JobStore, claims: Iterable[Claim]) -> None:
    """Commit synthetic results for claimed chunks."""
    rng = random.Random(0)  # noqa: S311
    for claim in claims:
        store.commit(claim, [_result(rng) for _ in claim.specs])


def synthetic_results(claim: Claim) -> list[ItemResult]:
    """Make results for a claimed chunk."""
    rng = random.Random(claim.chunk_index)  # noqa: S311
    return [_result(rng) for _ in claim.specs]


def _result(rng: random.Random) -> ItemResult:
    """Make a result of 4 labels that shares no part with others."""
    return ItemResult(
        scores=tuple(round(rng.betavariate(0.2, 0.6), 5) for _ in range(4)),
        image=ImageFacts(
            rng.randbytes(32).hex(), rng.randrange(20_000, 400_000), "jpeg", 1200, 900
        ),
        timings=Timings(rng.randrange(20, 900), rng.randrange(4, 30), 7),
    )
