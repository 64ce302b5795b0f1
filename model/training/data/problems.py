"""What is wrong with a data set: errors, which stop a run, and warnings, which do not."""

from dataclasses import dataclass, field
from pathlib import Path

from model.training.config import TrainingError

_SHOWN = 20


@dataclass
class DataProblems:
    """Sentences about the CSV file `csv_path`, each naming its row, column or picture."""

    csv_path: Path
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def settle(self) -> None:
        """Raise TrainingError with all of the errors if there are any."""
        if self.errors:
            more = len(self.errors) - _SHOWN
            shown = [*self.errors[:_SHOWN], *([f"and {more} more"] if more > 0 else [])]
            count = "1 error" if len(self.errors) == 1 else f"{len(self.errors)} errors"
            raise TrainingError("\n  ".join([f"{self.csv_path}: {count}", *shown]))
