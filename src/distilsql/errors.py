"""The hierarchy of exceptions that distilsql raises on purpose.

DistilSQLError
├── DataError        a benchmark, record or database file that is missing or malformed (also a ValueError)
│   └── DatabaseUnavailable  a database that cannot be read: missing, locked, damaged, changing
├── RecipeError      a recipe key or value that cannot be used (also a ValueError)
├── ModelError       a model, tokenizer or vocabulary that cannot be used (also a ValueError)
├── RunError         a run folder that cannot be written, resumed or read (also a RuntimeError)
└── TrainingError    training that had to stop, such as a loss that is not finite (also a RuntimeError)

A message says what happened, why, and what to do about it. The command line prints it without a traceback
and exits with status 1.
"""


class DistilSQLError(Exception):
    """Base class of every error that distilsql raises on purpose."""


class DataError(DistilSQLError, ValueError):
    """A benchmark, record or database file is missing or malformed."""


class DatabaseUnavailable(DataError):
    """A database is missing, locked or damaged, or changed while it was read, so that no query on it can be judged."""


class RecipeError(DistilSQLError, ValueError):
    """A recipe key is unknown or a value cannot be used."""


class ModelError(DistilSQLError, ValueError):
    """A model, adapter, tokenizer or vocabulary cannot be used, or two of them do not fit together."""


class RunError(DistilSQLError, RuntimeError):
    """A run folder cannot be written, resumed or read."""


class TrainingError(DistilSQLError, RuntimeError):
    """Training had to stop."""
