"""Reads a scrape as Prometheus does."""

from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families

Sample = Callable[..., float]


def read_scrape(text: str) -> Sample:
    """Give a function from a series, by name and labels, to its value; 0 where there is none."""
    values = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    return lambda name, **labels: values.get((name, frozenset(labels.items())), 0.0)
