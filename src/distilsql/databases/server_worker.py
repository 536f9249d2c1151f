"""The process that talks to PostgreSQL, MySQL or DuckDB; the same frames as SQLite's.

Every job gets a connection of its own, so that no setting, lock or temporary table outlives it; a read-only
transaction, a limit on the statement's time that the server itself keeps, one statement, a cursor that fetches
at most the cap, and a rollback. A process of its own bounds the memory a result can take here.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import date, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from importlib import import_module
from typing import Any

from distilsql.databases.engines.driver import Denied, Driver
from distilsql.databases.sqlite_worker import database_state
from distilsql.databases.worker_process import serve

UNLIMITED_ROWS = 2**31 - 2


class ServerWorker:
    """Jobs for one engine."""

    def __init__(self, driver: Driver, engine: str) -> None:
        self._driver = driver
        self._is_at_server = engine != "duckdb"

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        """One job to one answer; whatever goes wrong is an outcome."""
        before = self._states(job)
        started, is_late = time.perf_counter(), threading.Event()
        answer: dict[str, Any]
        try:
            connection = self._driver.connect(job)
        except Denied as error:
            answer = {"outcome": "DENIED", "message": str(error)}
        except Exception as error:  # the drivers share no base class
            answer = {"outcome": "UNAVAILABLE", "message": f"cannot connect: {str(error).strip()}"}
        else:
            started = time.perf_counter()
            answer = self._answer(connection, job, is_late)
        answer["seconds"] = time.perf_counter() - started
        answer["states"] = list(dict.fromkeys([*before, *self._states(job)]))
        if self._is_at_server:
            answer["cpu_seconds"] = answer["seconds"]
        return answer

    def _states(self, job: dict[str, Any]) -> list[tuple[int, ...]]:
        """Of DuckDB's file, as SQLite's worker has them."""
        return [] if self._is_at_server else [database_state(job["url"]["name"], log=".wal")]

    def _answer(self, connection: Any, job: dict[str, Any], is_late: threading.Event) -> dict[str, Any]:
        started = time.perf_counter()
        try:
            with _interrupted_after(job["timeout_s"], lambda: self._driver.interrupt(connection), is_late):
                if job["task"] == "catalogue":
                    found = json.dumps(self._driver.catalogue(connection))
                    return {"outcome": "ROWS", "columns": ["catalogue"], "rows": [[found]]}
                cap = job["max_rows"]
                count = UNLIMITED_ROWS if cap is None else cap + 1
                columns, rows = self._driver.fetch(connection, job["sql"], count)
            if time.perf_counter() - started >= job["timeout_s"]:
                # MySQL ends SLEEP and BENCHMARK at the limit as if they had come to an end.
                return {"outcome": "TIMEOUT", "message": "stopped at its time limit"}
            return _result(columns, [[plain(cell) for cell in row] for row in rows], cap)
        except MemoryError:
            return {"outcome": "TOO_LARGE", "message": "the result needed more memory than its limit"}
        except Denied as error:
            return {"outcome": "DENIED", "message": str(error)}
        except Exception as error:
            outcome = "TIMEOUT" if is_late.is_set() else self._driver.classify(error)
            return {"outcome": outcome, "message": self._driver.said(error)}
        finally:
            with suppress(Exception):  # a connection that is lost has nothing to undo
                self._driver.close(connection)


def _result(columns: list[str], rows: list[list[Any]], cap: int | None) -> dict[str, Any]:
    if cap is not None and len(rows) > cap:
        message = f"more than {cap} rows"
        return {"outcome": "TOO_MANY_ROWS", "columns": columns, "rows": rows[:cap], "message": message}
    return {"outcome": "ROWS", "columns": columns, "rows": rows}


@contextmanager
def _interrupted_after(
    timeout_s: float, interrupt: Callable[[], Any], is_late: threading.Event
) -> Iterator[None]:
    def stop() -> None:
        is_late.set()
        interrupt()

    timer = threading.Timer(timeout_s, stop)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def plain(cell: Any) -> Any:
    """A cell as SQLite has it, so that verdicts do not hang on the engine.

    Numbers of fixed point become whole numbers or floats, dates and times ISO text (`2020-01-31 23:59:00`), durations
    `HH:MM:SS`, arrays, structs and JSON the text of JSON, and anything else, such as a UUID, its own text. True and
    false stay, and equal 1 and 0.
    """
    if cell is None or isinstance(cell, bool | int | float | str | bytes):
        return cell
    if isinstance(cell, Decimal):
        return int(cell) if cell.is_finite() and cell == cell.to_integral_value() else float(cell)
    if isinstance(cell, date | time_of_day):
        return cell.isoformat(*([" "] if hasattr(cell, "hour") and hasattr(cell, "year") else []))
    if isinstance(cell, timedelta):
        return _duration(cell)
    if isinstance(cell, memoryview | bytearray):
        return bytes(cell)
    if isinstance(cell, list | tuple | dict):
        return json.dumps(cell, ensure_ascii=False, default=lambda inner: _text_of(plain(inner)))
    return str(cell)


def _text_of(cell: Any) -> Any:
    return cell.hex() if isinstance(cell, bytes) else cell


def _duration(length: timedelta) -> str:
    sign = "-" if length < timedelta(0) else ""
    minutes, seconds = divmod(abs(length).seconds, 60)
    hours = abs(length).days * 24 + minutes // 60
    fraction = f".{abs(length).microseconds:06}" if length.microseconds else ""
    return f"{sign}{hours:02}:{minutes % 60:02}:{seconds:02}{fraction}"


def main(parent_id: int, memory_bytes: int, engine: str) -> None:
    """The driver is loaded before the memory limit is set, and before any clock runs."""
    driver: Driver = import_module(f"distilsql.databases.engines.{engine}").DRIVER
    serve(parent_id, memory_bytes, ServerWorker(driver, engine).run)
