"""What differs between the databases that are no SQLite files: one `Driver` for each, in a file of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

CONNECT_TIMEOUT_S = 5


class Denied(Exception):
    """The connection may do more than read, or the statement is not a query."""


@dataclass(frozen=True)
class Driver:
    """`connect` opens a connection for one job that can only read, within the job's limits; `fetch` runs one statement
    on it and gives column names and at most `count` rows. `interrupt` stops that from another thread, `close` undoes
    whatever happened. `classify` names the Outcome of an error, `catalogue` lists what there is to read (see
    `databases.catalogue`), `said` is what the database says of an error."""

    connect: Callable[[dict[str, Any]], Any]
    fetch: Callable[[Any, str, int], tuple[list[str], list[Any]]]
    interrupt: Callable[[Any], Any]
    close: Callable[[Any], Any]
    classify: Callable[[BaseException], str]
    catalogue: Callable[[Any], dict[str, Any]]
    said: Callable[[BaseException], str] = lambda error: str(error).strip()


def driver_arguments(driver_name: str, url: dict[str, Any]) -> dict[str, Any]:
    """What the driver's `connect` takes, of a URL's parts; `driver_name` is SQLAlchemy's."""
    from sqlalchemy import URL  # not there, nor needed, for DuckDB

    made = URL.create(
        driver_name,
        url["user"] or None,
        url["password"] or None,
        url["host"] or None,
        url["port"],
        url["name"],
        url["query"],
    )
    return dict(made.get_dialect()().create_connect_args(made)[1])
