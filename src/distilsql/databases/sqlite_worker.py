"""The process that touches SQLite: reads jobs from standard input, writes results to standard output.

It is started with `python -I -S` and imports the standard library and `worker_process` alone, so that it starts in some
30 ms, holds none of the parent's secrets and never loads torch.
"""

import contextlib
import hashlib
import os
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from distilsql.databases.worker_process import serve

KEPT_CONNECTIONS = 32
STEPS_BETWEEN_CLOCK_READS = 5000
# How long a statement waits for another program's lock, if its own limit leaves the time.
LOCK_WAIT_S = 5.0
# How often a file is read again if it was read without locks and changed meanwhile.
READINGS = 3
HASHED_AT_ONCE = 2**20
# No benchmark's result has a cell near this; without a limit one call of randomblob takes all the memory there is.
LONGEST_CELL_BYTES = 100_000_000

# Functions that only compute on their arguments. Absent are those that reach files, load code, name the engine's
# insides or allocate by number (randomblob, zeroblob).
ALLOWED_FUNCTIONS = frozenset(
    """
    abs acos acosh asin asinh atan atan2 atanh avg ceil ceiling changes char coalesce cos cosh count cume_dist
    current_date current_time current_timestamp date datetime degrees dense_rank exp first_value floor format
    glob group_concat hex ifnull iif instr json json_array json_array_length json_extract json_group_array
    json_group_object json_object json_type json_valid julianday lag last_value lead length like likelihood
    likely ln log log10 log2 lower ltrim max min mod nth_value ntile nullif percent_rank pi pow power printf
    quote radians random rank replace round row_number rtrim sign sin sinh sqrt strftime string_agg substr
    substring sum tan tanh time timediff total trim trunc typeof unicode unixepoch unlikely upper -> ->>
    """.split()  # noqa: SIM905
)
ALLOWED_TABLE_FUNCTIONS = frozenset(("json_each", "json_tree"))
# What a single statement of a person's question can need, with room to spare.
SERVING_SQLITE_LIMITS = {
    "SQLITE_LIMIT_LENGTH": 1_000_000,
    "SQLITE_LIMIT_SQL_LENGTH": 100_000,
    "SQLITE_LIMIT_COLUMN": 200,
    "SQLITE_LIMIT_EXPR_DEPTH": 200,
    "SQLITE_LIMIT_COMPOUND_SELECT": 50,
    "SQLITE_LIMIT_VDBE_OP": 250_000,
    "SQLITE_LIMIT_FUNCTION_ARG": 100,
    "SQLITE_LIMIT_ATTACHED": 0,
    "SQLITE_LIMIT_LIKE_PATTERN_LENGTH": 1_000,
    "SQLITE_LIMIT_VARIABLE_NUMBER": 0,
    "SQLITE_LIMIT_TRIGGER_DEPTH": 1,
    "SQLITE_LIMIT_WORKER_THREADS": 0,
}


# What SQLite says where the file is the matter and not the statement: locked, damaged, gone, no database, a disk that
# fails. Of SQLITE_READONLY, the answer to a statement that would write, only these are about the file.
TROUBLE = frozenset(
    (
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_READONLY_RECOVERY,
        sqlite3.SQLITE_READONLY_CANTLOCK,
        sqlite3.SQLITE_READONLY_ROLLBACK,
        sqlite3.SQLITE_READONLY_DBMOVED,
        sqlite3.SQLITE_READONLY_CANTINIT,
        sqlite3.SQLITE_READONLY_DIRECTORY,
    )
)
REPAIR = "open and close the database once with a program that may write, such as sqlite3"


class Unreadable(Exception):
    """The file cannot be read as the database that it is; the message says why."""


class OpenDatabase:
    """An open connection and what the authorizer last refused on it."""

    def __init__(self, path: str, serving: bool, heap_bytes: int, timeout_s: float) -> None:
        self.refused = ""
        self._lock_wait_s = lock_wait_s(timeout_s)
        uri = read_only_uri(path)
        self.is_immutable = uri.endswith("&immutable=1")
        self.connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=self._lock_wait_s)
        self.connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)  # no ATTACH, so no VACUUM INTO either
        self.connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_CELL_BYTES)
        for pragma in (f"hard_heap_limit={heap_bytes}", "query_only=1", "temp_store=2", "mmap_size=0"):
            self.connection.execute(f"PRAGMA {pragma}").fetchall()
        if hasattr(self.connection, "enable_load_extension"):
            self.connection.enable_load_extension(False)
        self._authorizer: Callable[[int, Any, Any, Any, Any], int] | None = None
        if serving:
            self._protect()

    def wait_for_locks(self, timeout_s: float) -> None:
        """Wait for another program's lock as long as a statement with this limit may."""
        wait_s = lock_wait_s(timeout_s)
        if wait_s != self._lock_wait_s:
            self.connection.set_authorizer(None)
            self.connection.execute(f"PRAGMA busy_timeout={int(1000 * wait_s)}").fetchall()
            self.connection.set_authorizer(self._authorizer)
            self._lock_wait_s = wait_s

    def _protect(self) -> None:
        """The serving layers. Names are read before the authorizer closes the schema."""
        self.connection.execute("PRAGMA trusted_schema=0").fetchall()
        tables = self.connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
        self._tables = frozenset(
            name.lower() for (name,) in tables if not name.lower().startswith("sqlite_")
        ).union(ALLOWED_TABLE_FUNCTIONS)
        for name in ALLOWED_TABLE_FUNCTIONS:  # connected now: doing so needs more rights than calling them
            with contextlib.suppress(sqlite3.OperationalError):
                self.connection.execute(f"SELECT 1 FROM {name}('[]')").fetchall()
        modules = self.connection.execute("PRAGMA module_list").fetchall()
        self._modules = frozenset(name.lower() for (name,) in modules) - ALLOWED_TABLE_FUNCTIONS
        for name, value in SERVING_SQLITE_LIMITS.items():
            if hasattr(sqlite3, name):
                self.connection.setlimit(getattr(sqlite3, name), value)
        self._authorizer = self._authorize
        self.connection.set_authorizer(self._authorizer)

    def _authorize(self, action: int, first: Any, second: Any, database: Any, source: Any) -> int:
        """Allow-list: reading this database's own tables, and functions that only compute."""
        if action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE):
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in ALLOWED_FUNCTIONS:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_READ and self._may_read((first or "").lower(), second):
            return sqlite3.SQLITE_OK
        self.refused = f"action {action} on {first or second or 'the database'}"
        return sqlite3.SQLITE_DENY

    def _may_read(self, table: str, column: str | None) -> bool:
        """SQLite reports a source without used columns as column ''; only there can it be a CTE's name."""
        if table in self._tables:
            return True
        system = table.startswith(("sqlite_", "pragma_")) or table in self._modules
        return column == "" and not system


def lock_wait_s(timeout_s: float) -> float:
    """At most half of a statement's time, so that a lock is not taken for a slow statement."""
    return min(LOCK_WAIT_S, timeout_s / 2)


def read_only_uri(path: str) -> str:
    """`mode=ro`, and nothing beside the file made or changed: `readonly_shm=1` where a write-ahead log is read, which
    leaves its index as it is; `immutable=1` where the file is in WAL mode and has no log, which would be created.

    Names are those of the file that a symbolic link leads to, as SQLite's are. Raises Unreadable for a log without its
    index, which SQLite would have to write, and for an unfinished write that would have to be undone.
    """
    path = os.path.realpath(path)
    uri = f"file:{quote(path)}?mode=ro"
    with open(path, "rb") as file:
        header = file.read(20)
    if len(header) < 20 or header[18] != 2:
        return uri
    has_index = os.path.exists(path + "-shm")
    if os.path.exists(path + "-wal") and has_index:
        return f"{uri}&readonly_shm=1"
    if _size(path + "-wal"):
        raise Unreadable(f"{path}-wal holds changes, but {path}-shm, its index, is missing; {REPAIR}")
    if _size(path + "-journal"):  # of a change of the journal's mode; immutable, it would not be looked at
        raise Unreadable(unfinished(path))
    return f"{uri}&immutable=1"


def unfinished(path: str) -> str:
    return f"{os.path.realpath(path)}-journal holds a write that was not finished; {REPAIR}"


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except FileNotFoundError:
        return 0


class Worker:
    """Connections kept open between jobs, most recently used last."""

    def __init__(self, memory_bytes: int) -> None:
        self._heap_bytes = memory_bytes // 2  # the other half is for the rows
        self._open: OrderedDict[tuple[Any, ...], OpenDatabase] = OrderedDict()

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        """One job to one answer. Nothing a statement does leaves this function as an exception.

        `states` in the answer are those of the file before and after: one, unless it changed meanwhile.
        """
        started = time.perf_counter()
        answer: dict[str, Any] = {}
        for _ in range(READINGS):
            before = database_state(job["path"])
            answer, is_torn = self._answer(job, started)
            after = database_state(job["path"])
            answer["states"] = [before] if before == after else [before, after]
            if before == after or not is_torn:
                break
        else:
            answer |= {"outcome": "UNAVAILABLE", "message": "it changed while it was read", "rows": []}
        answer["seconds"] = time.perf_counter() - started
        return answer

    def _answer(self, job: dict[str, Any], started: float) -> tuple[dict[str, Any], bool]:
        """The answer, and whether a change of the file meanwhile would make it void: what is read without locks."""
        if job["task"] == "fingerprint":
            return fingerprint(job["path"]), True
        database = None
        try:
            database = self._database(job)
            database.refused = ""
            database.wait_for_locks(job["timeout_s"])
            answer = fetch(database.connection, job, started + job["timeout_s"])
        except MemoryError:
            answer = {"outcome": "TOO_LARGE", "message": "the statement needed more memory than its limit"}
        except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError, OSError, Unreadable) as error:
            is_late = time.perf_counter() - started >= job["timeout_s"]
            answer = failure(error, job["path"], database, is_late)
        if database is not None and answer["outcome"] == "UNAVAILABLE":
            self._forget(database)
        if database is not None and not only_reads(job["sql"]):
            self._forget(database)
            # Some PRAGMAs, such as hard_heap_limit, set what they set while they are prepared, even if nothing runs.
            is_refused = answer["outcome"] in ("SQL_ERROR", "DENIED")
            answer["leaves_traces"] = not is_refused or "pragma" in job["sql"].lower()
        return answer, database is not None and database.is_immutable

    def _database(self, job: dict[str, Any]) -> OpenDatabase:
        serving, state = job["mode"] == "serving", database_state(job["path"])
        for stale in [key for key in self._open if key[0] == job["path"] and key[1] != state]:
            self._open.pop(stale).connection.close()
        key = (job["path"], state, serving, job["decoding"], job["reverse_unordered"])
        if key not in self._open:
            if len(self._open) >= KEPT_CONNECTIONS:
                self._open.popitem(last=False)[1].connection.close()
            self._open[key] = OpenDatabase(job["path"], serving, self._heap_bytes, job["timeout_s"])
            if job["reverse_unordered"]:
                self._open[key].connection.execute("PRAGMA reverse_unordered_selects=1").fetchall()
        self._open.move_to_end(key)
        return self._open[key]

    def _forget(self, database: OpenDatabase) -> None:
        for key in [key for key, value in self._open.items() if value is database]:
            del self._open[key]
        database.connection.close()


def database_state(path: str, log: str = "-wal") -> tuple[int, ...]:
    """What tells one state of a database from another: inode, size in bytes and time of change in ns, of its file and
    of its write-ahead log, called as the file with `log` behind it. Nothing of one that is not there. Opens nothing: in
    a process with SQLite connections of its own, closing any descriptor of the file would drop their locks."""
    path = os.path.realpath(path)
    return _file_state(path) + _file_state(path + log)


def _file_state(path: str) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return (status.st_ino, status.st_size, status.st_mtime_ns)


def fingerprint(path: str) -> dict[str, Any]:
    """The SHA-256 of what is in the file, followed by its write-ahead log if that holds anything."""
    digest = hashlib.sha256()
    path = os.path.realpath(path)
    try:
        for part in (path, path + "-wal"):
            if part == path or _size(part):
                with open(part, "rb") as file:
                    while block := file.read(HASHED_AT_ONCE):
                        digest.update(block)
    except OSError as error:
        return {"outcome": "UNAVAILABLE", "message": error.strerror or str(error)}
    return {"outcome": "ROWS", "columns": ["sha256"], "rows": [[digest.hexdigest()]]}


def only_reads(sql: str) -> bool:
    """Whether connection and process are surely unchanged afterwards: what is not plainly a query is not.

    A PRAGMA can set what lasts, some of it for the whole process (`hard_heap_limit`, which can only be lowered).
    """
    words = sql.lstrip(" \t\r\n(").lower().removeprefix("explain ")
    return words.startswith(("select", "with", "values"))


def fetch(connection: sqlite3.Connection, job: dict[str, Any], deadline: float) -> dict[str, Any]:
    """Execute and fetch, decoding text as fast as the text allows.

    SQLite's text is nearly always UTF-8, and `str` decodes it in C. Only when that fails are the bad bytes
    dropped by a Python function, on this connection from then on.
    """
    taken, most = 0, job["max_steps"]
    cpu_deadline = None if job["cpu_s"] is None else time.process_time() + job["cpu_s"]

    def is_over() -> bool:
        nonlocal taken
        taken += STEPS_BETWEEN_CLOCK_READS
        if time.perf_counter() > deadline or (most is not None and taken > most):
            return True
        return cpu_deadline is not None and time.process_time() > cpu_deadline

    connection.set_progress_handler(is_over, STEPS_BETWEEN_CLOCK_READS)
    try:
        return rows_of(connection.execute(job["sql"]), job)
    except sqlite3.OperationalError as error:
        undecodable = str(error).startswith("Could not decode to UTF-8")
        if not undecodable or job["decoding"] == "strict":
            raise
    connection.text_factory = lambda raw: raw.decode(errors="ignore")
    return rows_of(connection.execute(job["sql"]), job)


def rows_of(cursor: sqlite3.Cursor, job: dict[str, Any]) -> dict[str, Any]:
    cap = job["max_rows"]
    rows = cursor.fetchall() if cap is None else cursor.fetchmany(cap + 1)
    columns = [column[0] for column in cursor.description or ()]
    cursor.close()
    if cap is not None and len(rows) > cap:
        message = f"more than {cap} rows"
        return {"outcome": "TOO_MANY_ROWS", "columns": columns, "rows": rows[:cap], "message": message}
    return {"outcome": "ROWS", "columns": columns, "rows": rows}


def failure(error: Exception, path: str, database: OpenDatabase | None, is_late: bool) -> dict[str, Any]:
    """Whose fault it was: the statement's, its limits', or the file's."""
    message = str(error)
    if database is not None and database.refused:
        return {"outcome": "DENIED", "message": f"{message} ({database.refused})"}
    if is_trouble(error):
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY_ROLLBACK:
            message = unfinished(path)
        if isinstance(error, UnicodeDecodeError):
            message = "a name in it is not UTF-8"
        return {"outcome": "UNAVAILABLE", "message": message}
    if is_late or message == "interrupted":
        return {"outcome": "TIMEOUT", "message": "stopped at its limit of time or steps"}
    if "string or blob too big" in message or "out of memory" in message:
        return {"outcome": "TOO_LARGE", "message": message}
    return {"outcome": "SQL_ERROR", "message": message}


def is_trouble(error: Exception) -> bool:
    """Whether it is the file that cannot be read, whatever the statement."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        # Of a name in the schema; of a cell, sqlite3 has an error of its own.
        return isinstance(error, OSError | Unreadable | UnicodeDecodeError)
    return code in TROUBLE or code & 0xFF in TROUBLE


def main(parent_id: int, memory_bytes: int) -> None:
    serve(parent_id, memory_bytes, Worker(memory_bytes).run)
