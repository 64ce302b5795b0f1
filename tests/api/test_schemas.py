"""The bodies of requests, without a service."""

import pytest
from pydantic import ValidationError

from api.schemas import JobOptions
from worker.jobs.errors import describe


@pytest.mark.parametrize(
    ("max_failures", "failures"),
    [("64.1%", 641), ("0.1%", 1), ("100.0%", 1000), ("7", 7), (7, 7), (7.0, 7), (None, None)],
)
def test_a_failure_budget_is_exact(max_failures: object, failures: int | None) -> None:
    options = JobOptions.model_validate({"max_failures": max_failures})
    assert options.budget(1000) == failures


@pytest.mark.parametrize(
    "max_failures",
    [-1, "101%", "100.5%", "many", "5.12345%", True, 3.5, [1], "9" * 5000, 10**15, float("nan")],
)
def test_an_invalid_failure_budget_is_refused_in_one_sentence(max_failures: object) -> None:
    with pytest.raises(ValidationError) as refused:
        JobOptions.model_validate({"max_failures": max_failures})
    said = describe(refused.value.errors())
    assert said.startswith(
        "max_failures: must be a whole number of up to 15 digits, or a percentage from 0% to 100% "
        'such as "5%"'
    )
    assert "; " not in said


def test_an_empty_name_of_a_model_is_refused() -> None:
    with pytest.raises(ValidationError) as refused:
        JobOptions.model_validate({"model": ""})
    assert describe(refused.value.errors()) == "model: must have at least 1 character, and is ''"
    assert JobOptions.model_validate({"model": None}).reference is None
