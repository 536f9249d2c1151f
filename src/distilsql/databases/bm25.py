"""The bm25s library, imported without JAX and without its messages.

Where JAX is installed, bm25s sets it up when it is imported. That takes seconds and, by JAX's default, three quarters
of a GPU's memory, and fails where another process has the GPU. We rank with NumPy. And bm25s sets its logger to DEBUG,
so that a program that shows warnings alone would show what it says of every index.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["bm25s", "stopwords", "without"]


@contextmanager
def without(name: str) -> Iterator[None]:
    """Importing the package `name` fails in here, as if it were not installed."""
    loaded = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
        if loaded is not None:
            sys.modules[name] = loaded


with without("jax"):
    import bm25s
    from bm25s import stopwords
logging.getLogger("bm25s").setLevel(logging.NOTSET)  # what the program wants to see
