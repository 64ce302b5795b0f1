"""Tables of any size, and results for them that nobody scored but that look as if."""

import random
from pathlib import Path

from worker.jobs.items import ImageFacts, ItemResult, Timings
from worker.jobs.ledger.store import JobStore

CSV_TYPE = {"Content-Type": "text/csv"}
_WORDS = (
    *("linen", "cotton", "oak", "brass", "summer", "winter", "blue", "green", "large", "small"),
    *("lamp", "chair", "table", "curtain", "basket", "mirror", "cushion", "set of two", "for"),
    *("garden", "kitchen", "with handle", "without", "lid", "and", "hand made"),
)
_LEASE_S = 60


def write_table(path: Path, rows: int) -> None:
    """Write a CSV of a shop's pictures, 200 bytes a row: sku, url, title, category, price."""
    chance = random.Random(rows)  # noqa: S311
    with path.open("w") as table:
        table.write("sku,url,title,category,price\n")
        for row in range(rows):
            words = " ".join(chance.choices(_WORDS, k=9))
            table.write(
                f"SKU-{row:08d},http://pictures.example.com/catalogue/2026/{row % 97:02d}/"
                f"{chance.getrandbits(64):016x}/product-{row:08d}-front-1200x900.jpg,"
                f"{words},home/{chance.choice(_WORDS)},{chance.randrange(100, 99900) / 100}\n"
            )


def score_all(store: JobStore, job_id: str, chunks: range) -> None:
    """Claim the chunks of a job and commit made-up results for them."""
    chance = random.Random(0)  # noqa: S311
    for chunk in chunks:
        claim = store.claim(job_id, chunk, _LEASE_S)
        assert claim
        store.commit(claim, [_result(chance) for _ in claim.specs])


def _result(chance: random.Random) -> ItemResult:
    """Give a result of 4 labels, no part of which repeats that of another."""
    return ItemResult(
        scores=tuple(round(chance.betavariate(0.2, 0.6), 5) for _ in range(4)),
        image=ImageFacts(
            chance.randbytes(32).hex(), chance.randrange(20_000, 400_000), "jpeg", 1200, 900
        ),
        timings=Timings(chance.randrange(20, 900), chance.randrange(4, 30), 7),
    )
