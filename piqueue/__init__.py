"""The client of Piqueue, which scores pictures in bulk: `Client`, `AsyncClient` and their types."""

from piqueue.async_client import AsyncClient
from piqueue.client import Client
from piqueue.errors import PiqueueApiError
from piqueue.types import (
    Counts,
    Draft,
    DryRun,
    DuplicateGroup,
    Filters,
    Item,
    ItemError,
    Job,
    JobOptions,
    Limits,
    Model,
    Result,
    Similar,
)

__all__ = [
    "AsyncClient",
    "Client",
    "Counts",
    "Draft",
    "DryRun",
    "DuplicateGroup",
    "Filters",
    "Item",
    "ItemError",
    "Job",
    "JobOptions",
    "Limits",
    "Model",
    "PiqueueApiError",
    "Result",
    "Similar",
]
