"""Receiving the items of a submission one by one, and the problems found in them."""

from abc import ABC, abstractmethod

from api.intake.admission import columns_problem, id_problem, item_problem
from worker.jobs.errors import LISTED_PROBLEMS, ItemProblem, ItemsRefused, TooLarge, shortened
from worker.jobs.items import MAX_ID_CHARS, ItemSpec
from worker.jobs.record import CsvShape
from worker.jobs.settings import Settings


class ProblemList:
    """Problems of items: the first hundred are listed, all are counted."""

    def __init__(self) -> None:
        self.count = 0
        self._listed: list[ItemProblem] = []

    def add(self, index: int, item_id: str | None, detail: str) -> None:
        """Add the problem of one item."""
        self.count += 1
        if len(self._listed) < LISTED_PROBLEMS:
            item_id = item_id and item_id[:MAX_ID_CHARS]
            self._listed.append(ItemProblem(index, item_id, shortened(detail)))

    def check(self) -> None:
        """Raise ItemsRefused if there is any problem."""
        if self.count:
            raise ItemsRefused(self._listed, self.count)


def at_line(line: int | None, problem: str, column: str | None = None) -> str:
    """Write a problem with the line of its item, if it has one, and the column."""
    where = "" if column is None else f", column {column!r}"
    return problem if line is None else f"line {line}{where}: {problem}"


class ItemReceiver(ABC):
    """Receives items as a body is read; `count` is how many came, with or without a problem."""

    def __init__(self, settings: Settings) -> None:
        self.count = 0
        # The columns of the CSV that the items come from.
        self.csv: CsvShape | None = None
        self.problems = ProblemList()
        self._settings = settings
        # The line of the item that is accepted now.
        self._line: int | None = None

    def default_id(self) -> str:
        """Return the id of the next item if it comes without one: its index."""
        return str(self.count)

    def add_problem(self, detail: str, item_id: str | None = None) -> None:
        """Count the next item as invalid, for this reason.

        Raises:
            TooLarge: the job would hold too many items.
        """
        self._check_count()
        self.problems.add(self.count, item_id, detail)
        self.count += 1

    def add(
        self,
        spec: ItemSpec,
        payload: bytes | None = None,
        line: int | None = None,
        url_column: str | None = None,
    ) -> None:
        """Add the next item: a URL, or an upload with its payload.

        `line` is its line in the body, counted from 1, if the body has lines, and `url_column` the
        name of the column of URLs, if it has columns.

        Raises:
            TooLarge: the job would hold too many items.
        """
        self._check_count()
        problem = id_problem(spec) or columns_problem(spec) or self._problem(spec)
        column = None if problem else url_column
        problem = problem or item_problem(spec, payload, self._settings)
        if problem is not None:
            self.add_problem(at_line(line, problem, column), spec.id or None)
            return
        self.count += 1
        self._line = line
        self._accept(spec, payload)

    def add_admitted(self, spec: ItemSpec) -> None:
        """Add the next item, a URL or an upload without payload, that another job has admitted.

        It is not checked again, which would take most of the time. `csv` must be that of its job.

        Raises:
            TooLarge: the job would hold too many items.
        """
        self._check_count()
        self.count += 1
        self._line = None
        self._accept(spec, None)

    def _check_count(self) -> None:
        most = self._settings.max_items
        if self.count >= most:
            raise TooLarge(f"the job has more than {most} items: send the rest as another job")

    def _problem(self, _spec: ItemSpec) -> str | None:
        """Return what else is wrong with an item, or None."""
        return None

    @abstractmethod
    def _accept(self, spec: ItemSpec, payload: bytes | None) -> None:
        """Store an item that has no problem; `count` includes it."""
