"""A database that others change while it is asked about: its schema is read again, so prompts stay current.

Its rows are read by every statement anyway.
"""

import logging
import threading
import time
from dataclasses import replace

from distilsql.databases.database import Database, open_database
from distilsql.databases.schema import Schema
from distilsql.inference.asker import Asker
from distilsql.inference.model import Model

log = logging.getLogger(__name__)
# How long a schema is taken to be as it was: reading one takes milliseconds of a file, more of a server's catalogue.
READ_AGAIN_S = 5.0


class LiveDatabase:
    """Makes the prompts of questions about `database`; safe to call from threads."""

    def __init__(self, model: Model, database: Database, read_again_s: float = READ_AGAIN_S) -> None:
        self.asker = Asker(model, database)
        self._model, self._read_again_s = model, read_again_s
        self._lock = threading.Lock()
        self._read_at = time.monotonic()

    def current(self) -> Asker:
        """What makes prompts of the schema as it is, or was a few seconds ago.

        Raises:
            DataError: the database cannot be read, or has no table any more.
        """
        if time.monotonic() - self._read_at < self._read_again_s:
            return self.asker
        with self._lock:  # those who come meanwhile wait for it: they would ask by a schema that may be gone
            if time.monotonic() - self._read_at >= self._read_again_s:
                self._read()
        return self.asker

    def _read(self) -> None:
        known = self.asker.database
        found = open_database(known.path, known.db_id)
        if _structure(found.schema) != _structure(known.schema):
            log.info(
                f"The tables of {known.db_id} have changed; questions are asked of them as they are now."
            )
            self.asker = Asker(self._model, found)
        self._read_at = time.monotonic()


def _structure(schema: Schema) -> Schema:
    """Without comments, which a benchmark describes its tables with and a SQLite file does not hold."""
    tables = tuple(
        replace(table, comment="", columns=tuple(replace(column, comment="") for column in table.columns))
        for table in schema.tables
    )
    return replace(schema, tables=tables)
