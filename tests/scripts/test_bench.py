"""The command line of the benchmarks."""

import pytest

from scripts.bench import BENCHMARKS, options


def test_an_unknown_benchmark_is_refused_with_the_names_of_those_that_exist(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        options().parse_args(["nosuch"])
    assert capsys.readouterr().err.endswith(f"no 'nosuch': choose from {', '.join(BENCHMARKS)}\n")


def test_without_names_all_benchmarks_run() -> None:
    assert options().parse_args([]).names == []
    assert options().parse_args(["page", "teach"]).names == ["page", "teach"]
