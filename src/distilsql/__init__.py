"""distilsql: distil a large text-to-SQL language model into a small one, and evaluate it by running the SQL.

The names in `__all__` are the public interface; docs/python.md shows how to use them. They are imported lazily, so
`import distilsql` is instant; torch is loaded only by the functions that need it.
"""

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distilsql.data.load import load_benchmark
    from distilsql.distill.methods import METHODS
    from distilsql.errors import (
        DatabaseUnavailable,
        DataError,
        DistilSQLError,
        ModelError,
        RecipeError,
        RunError,
        TrainingError,
    )
    from distilsql.inference.ask import ask
    from distilsql.inference.candidates import Choosing
    from distilsql.inference.predict import load_student, predict
    from distilsql.report.compare import compare
    from distilsql.runs.evaluate import evaluate_predictions as evaluate
    from distilsql.runs.recipe import Recipe, load_recipe, make_recipe
    from distilsql.training.train import train

__version__ = "0.1.0"

__all__ = [
    "METHODS",
    "Choosing",
    "DataError",
    "DatabaseUnavailable",
    "DistilSQLError",
    "ModelError",
    "Recipe",
    "RecipeError",
    "RunError",
    "TrainingError",
    "__version__",
    "ask",
    "compare",
    "evaluate",
    "load_benchmark",
    "load_recipe",
    "load_student",
    "make_recipe",
    "predict",
    "train",
]

# The module that defines each name, and its name there if that differs.
_HOMES = {
    "METHODS": "distilsql.distill.methods",
    **dict.fromkeys(
        (name for name in __all__ if name.endswith(("Error", "Unavailable"))), "distilsql.errors"
    ),
    **dict.fromkeys(("Recipe", "load_recipe", "make_recipe"), "distilsql.runs.recipe"),
    "Choosing": "distilsql.inference.candidates",
    "ask": "distilsql.inference.ask",
    "compare": "distilsql.report.compare",
    "evaluate": "distilsql.runs.evaluate:evaluate_predictions",
    "load_benchmark": "distilsql.data.load",
    "load_student": "distilsql.inference.predict",
    "predict": "distilsql.inference.predict",
    "train": "distilsql.training.train",
}

# A library says nothing unless its user configures logging. The command line does.
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home, _, other = _HOMES[name].partition(":")
    value = getattr(importlib.import_module(home), other or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
