"""The process that touches SQLite: reads jobs from standard input, writes results to standard output.

It is started by its path with `python -I -S` and imports the standard library alone, so that it starts in some
30 ms, holds none of the parent's secrets and never loads torch. Both directions carry frames: four bytes of
length (big endian), then JSON. Data, not pickles: a worker that a hostile statement has taken over
can lie about rows but cannot run code in its parent.
"""

import contextlib
import json
import os
import signal
import sqlite3
import struct
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, BinaryIO
from urllib.parse import quote

try:
    import resource
except ImportError:  # not a POSIX system: the parent's clock and SQLite's own limits remain
    resource = None  # type: ignore[assignment]

KEPT_CONNECTIONS = 32
STEPS_BETWEEN_CLOCK_READS = 5000
PARENT_CHECK_S = 0.25
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


class Database:
    """An open connection and what the authorizer last refused on it."""

    def __init__(self, path: str, serving: bool, heap_bytes: int) -> None:
        self.refused = ""
        self.connection = sqlite3.connect(read_only_uri(path), uri=True, isolation_level=None)
        self.connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)  # no ATTACH, so no VACUUM INTO either
        self.connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_CELL_BYTES)
        for pragma in (f"hard_heap_limit={heap_bytes}", "query_only=1", "temp_store=2", "mmap_size=0"):
            self.connection.execute(f"PRAGMA {pragma}").fetchall()
        if hasattr(self.connection, "enable_load_extension"):
            self.connection.enable_load_extension(False)
        if serving:
            self._protect()

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
        self.connection.set_authorizer(self._authorize)

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
        """SQLite reports a source no column of which is used as column ''; only there can it be a CTE's name."""
        if table in self._tables:
            return True
        system = table.startswith(("sqlite_", "pragma_")) or table in self._modules
        return column == "" and not system


def read_only_uri(path: str) -> str:
    """`mode=ro`; `immutable=1` only where a WAL file would otherwise have to be created beside the database.

    Raises sqlite3.OperationalError for a WAL file without its index, which SQLite would have to write.
    """
    mode = "mode=ro"
    with open(path, "rb") as file:
        header = file.read(20)
    is_wal = len(header) == 20 and header[18] == 2
    if is_wal and not (os.path.exists(path + "-wal") and os.path.getsize(path + "-wal")):
        mode += "&immutable=1"
    elif is_wal and not os.path.exists(path + "-shm"):
        raise sqlite3.OperationalError(
            f"{path}-wal holds changes, but {path}-shm, its index, is missing; open and close the database once with "
            "a program that may write, such as sqlite3"
        )
    return f"file:{quote(path)}?{mode}"


class Worker:
    """Connections kept open between jobs, most recently used last."""

    def __init__(self, memory_bytes: int) -> None:
        self._heap_bytes = memory_bytes // 2  # the other half is for the rows
        self._open: OrderedDict[tuple[Any, ...], Database] = OrderedDict()

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        """One job to one answer. Nothing a statement does leaves this function as an exception."""
        started = time.perf_counter()
        database = None
        try:
            database = self._database(job)
            database.refused = ""
            answer = fetch(database.connection, job, started + job["timeout_s"])
        except MemoryError:
            answer = {"outcome": "TOO_LARGE", "message": "the statement needed more memory than its limit"}
        except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError, OSError) as error:
            answer = failure(error, database, time.perf_counter() - started >= job["timeout_s"])
        if database is not None and not only_reads(job["sql"]):
            self._forget(database)
            # Some PRAGMAs, such as hard_heap_limit, set what they set while they are prepared, even if nothing runs.
            is_refused = answer["outcome"] in ("SQL_ERROR", "DENIED")
            answer["leaves_traces"] = not is_refused or "pragma" in job["sql"].lower()
        answer["seconds"] = time.perf_counter() - started
        return answer

    def _database(self, job: dict[str, Any]) -> Database:
        serving = job["mode"] == "serving"
        key = (job["path"], database_state(job["path"]), serving, job["decoding"], job["reverse_unordered"])
        if key not in self._open:
            if len(self._open) >= KEPT_CONNECTIONS:
                self._open.popitem(last=False)[1].connection.close()
            self._open[key] = Database(job["path"], serving, self._heap_bytes)
            if job["reverse_unordered"]:
                self._open[key].connection.execute("PRAGMA reverse_unordered_selects=1").fetchall()
        self._open.move_to_end(key)
        return self._open[key]

    def _forget(self, database: Database) -> None:
        for key in [key for key, value in self._open.items() if value is database]:
            del self._open[key]
        database.connection.close()


def database_state(path: str) -> tuple[int, ...]:
    """What tells one state of a database from another: inode, size in bytes and time of change in ns, of its file and
    of its write-ahead log. Nothing of one that is not there."""
    return _file_state(path) + _file_state(path + "-wal")


def _file_state(path: str) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return ()
    return (status.st_ino, status.st_size, status.st_mtime_ns)


def only_reads(sql: str) -> bool:
    """Whether connection and process are surely unchanged afterwards: what is not plainly a query is not.

    A PRAGMA can set what lasts, some of it for the whole process (`hard_heap_limit`, which can only be lowered).
    """
    return sql.lstrip(" \t\r\n(").lower().startswith(("select", "with", "values"))


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


def failure(error: Exception, database: Database | None, is_late: bool) -> dict[str, Any]:
    message = str(error)
    if database is not None and database.refused:
        return {"outcome": "DENIED", "message": f"{message} ({database.refused})"}
    if is_late or message == "interrupted":
        return {"outcome": "TIMEOUT", "message": "stopped at its limit of time or steps"}
    if "string or blob too big" in message or "out of memory" in message:
        return {"outcome": "TOO_LARGE", "message": message}
    return {"outcome": "SQL_ERROR", "message": message}


def limit_process(memory_bytes: int) -> None:
    """Operating system limits for the whole life of this process: address space, no byte to any file, no core."""
    if resource is None:
        return
    address_space = address_space_bytes() + memory_bytes
    for kind, value in (
        (resource.RLIMIT_AS, address_space),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))


def allow_cpu_seconds(timeout_s: float) -> None:
    """The kernel kills a worker that computes past its limit even if its parent has stopped watching."""
    if resource is None:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    until_s = int(used.ru_utime + used.ru_stime + timeout_s) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (until_s, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def address_space_bytes() -> int:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 256 * 2**20


def encode(answer: dict[str, Any], max_bytes: int) -> bytes:
    try:
        payload = json.dumps(answer, ensure_ascii=False, default=encode_bytes).encode(
            errors="backslashreplace"
        )
    except MemoryError:
        payload = None
    if payload is None or len(payload) > max_bytes:
        message = f"the result is larger than {max_bytes} bytes"
        times = {name: answer[name] for name in ("seconds", "cpu_seconds")}
        answer = {"outcome": "TOO_LARGE", "message": message} | times
        payload = json.dumps(answer).encode()
    return frame_of(payload)


def frame_of(payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + payload


def encode_bytes(value: Any) -> dict[str, str]:
    """JSON has no bytes; no other cell is an object, so the way back is unambiguous."""
    return {"bytes": value.hex()}


def read_frame(stream: BinaryIO) -> bytes | None:
    """The next frame, or None at the end of the stream."""
    header = stream.read(4)
    if len(header) < 4:
        return None
    (size,) = struct.unpack(">I", header)
    payload = stream.read(size)
    return payload if len(payload) == size else None


def exit_with_parent(parent_id: int) -> None:
    """Ends this process when its parent is gone, also in the middle of a query (SQLite releases the GIL).

    PR_SET_PDEATHSIG would not do: it fires when the thread that started the worker ends, not the process.
    """
    while os.getppid() == parent_id:
        time.sleep(PARENT_CHECK_S)
    os._exit(1)


def serve(parent_id: int, memory_bytes: int, run: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Say that this process is ready, then answer jobs until the parent closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it ends its workers
    threading.stack_size(256 * 1024)
    threading.Thread(target=exit_with_parent, args=(parent_id,), daemon=True).start()
    limit_process(memory_bytes)
    output = sys.stdout.buffer
    output.write(frame_of(b"ready"))
    output.flush()
    while (frame := read_frame(sys.stdin.buffer)) is not None:
        job = json.loads(frame)
        allow_cpu_seconds(job["timeout_s"] if job["cpu_s"] is None else job["cpu_s"])
        started_cpu = time.process_time()
        answer = run(job)
        answer["cpu_seconds"] = time.process_time() - started_cpu
        output.write(encode(answer, job["max_bytes"]))
        output.flush()


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]), Worker(int(sys.argv[2])).run)
