"""Source: the database that pairs are made about. Whatever synthesis reads, it reads here."""

from dataclasses import dataclass, replace

from distilsql.databases.dialect import quoted_in
from distilsql.databases.execute import refuse_powers
from distilsql.databases.job import Cell, Execution, Job, make_job
from distilsql.databases.reading import quoted_text, read
from distilsql.databases.schema import Schema, introspect
from distilsql.databases.url import DIALECTS, Engine, Place, engine_of, id_of, place_of

# Of SQLite's virtual machine, a second or two: no statement of a profile scans a large table to its end.
PROFILE_STEPS = 20_000_000
# What one kept query may cost, the same on every machine: some seconds of one core, a scan of ten million rows.
QUERY_STEPS = 300_000_000
# Of the other engines, which count no steps.
PROFILE_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Source:
    """`db_id` is what names and pairs call the database, `path` a SQLite file or a DatabaseUrl."""

    db_id: str
    path: Place
    schema: Schema

    def __str__(self) -> str:
        return str(self.path)

    @property
    def engine(self) -> Engine:
        return engine_of(self.path)

    @property
    def dialect(self) -> str:
        """sqlglot's name of the engine's SQL."""
        return DIALECTS[self.engine]

    def read(self, sql: str) -> Execution:
        """One SELECT of ours, stopped where it would scan a large table. Raises DatabaseUnavailable."""
        if self.engine == "sqlite":
            return read(self.path, sql, max_steps=PROFILE_STEPS)
        return read(self.path, sql, timeout_s=PROFILE_TIMEOUT_S)

    def job(self, sql: str) -> Job:
        """A query under the limits of serving."""
        return serving_job(self.path, sql)

    def quoted(self, name: str) -> str:
        return quoted_in(name, self.engine)

    def literal(self, cell: Cell) -> str:
        if isinstance(cell, str):
            return quoted_text(cell.replace("\\", "\\\\") if self.engine == "mysql" else cell)
        return "NULL" if cell is None or isinstance(cell, bytes) else str(cell)


def serving_job(path: Place, sql: str) -> Job:
    job = make_job(path, sql, mode="serving")
    return replace(job, max_steps=QUERY_STEPS) if job.engine == "sqlite" else job


def open_source(place: Place | str) -> Source:
    """The database at the path of a SQLite file or at a URL. Raises DatabaseUnavailable if it cannot be read, DataError
    without a table, and for a user of a server who may do more than read: models' queries run as that user."""
    path = place_of(place)
    source = Source(id_of(path), path, introspect(path))
    refuse_powers(path)
    return source
