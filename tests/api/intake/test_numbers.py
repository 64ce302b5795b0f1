"""Which submitted columns hold only numbers."""

import pytest

from api.intake.numbers import NumberColumns


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "0", "-20", ""], "integer"),
        (["999999999999999"], "integer"),
        (["12.50", "0.5", "-0.25", ""], "decimal"),
        (["1", "2.5", "3"], "decimal"),
        (["0.000000000000000012"], "decimal"),
        (["", ""], None),
        *(
            (["1", cell, "2"], None)
            for cell in ("007", "00", "-0", "1e5", "1E5", "+1", "1,5", "1 000", " 1", "1.", ".5")
        ),
        *((["1", cell], None) for cell in ("1000000000000000", "0.1234567890123456", "01.5")),
        *((["1", cell], None) for cell in ("٣", "½", "0x1F", "nan", "inf", "1_000", "2026-11-27")),
    ],
)
def test_a_column_is_numeric_if_each_cell_comes_back_as_the_same_number(
    cells: list[str], kind: str | None
) -> None:
    columns = NumberColumns()
    for cell in cells:
        columns.add({"one": cell, "other": "x"})
    assert columns.found == ({} if kind is None else {"one": kind})
