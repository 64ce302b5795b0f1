"""Every error Piqueue raises on purpose.

PiqueueError
├── SettingsInvalid      a setting is misspelt, out of range or contradicts another
├── JobNotFound          no such job, or it has expired
├── ModelNotFound        no such model, or no such version of it
├── JobRefused           the submission cannot become a job
│   ├── ItemsRefused     some of its items cannot; says which
│   ├── TooManyItems
│   └── TooLarge
├── QueueFull            too much work is waiting already
├── NoAnswer             nothing was scored within the time a caller would wait
├── ArtifactInvalid      (in model.card) ...
└── ...
"""


class PiqueueError(Exception):
    """An error with a sentence for a person in it."""


class SettingsInvalid(PiqueueError):
    """A setting is misspelt, out of range or contradicts another."""
