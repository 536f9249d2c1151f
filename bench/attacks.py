"""What hostile SQLite statements do with and without the layers, as data and as the table of docs/security.md.

    python bench/attacks.py

Every attack of tests/databases/attacks_sqlite.json runs in both modes, on a fresh worker each. Outcome, seconds,
peak memory above an idle worker's and files changed go to bench/results/attacks.json, the table to standard output.
"""

import json
import platform
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from distilsql.databases.job import LIMITS, MIB, Mode, make_job
from distilsql.databases.pool import ExecutionPool

ROOT = Path(__file__).resolve().parent.parent
ATTACKS: list[dict[str, Any]] = json.loads((ROOT / "tests" / "databases" / "attacks_sqlite.json").read_text())
for _attack in ATTACKS:  # a statement of megabytes is written as its beginning and what is repeated
    _attack["sql"] += _attack.get("then", "") * _attack.get("times", 0)
SECRET = "the secret word"
RESULTS = ROOT / "bench" / "results" / "attacks.json"
TIMEOUT_S = 1.0
MODES: tuple[Mode, ...] = ("evaluation", "serving")


def make_folder(folder: Path) -> None:
    """Two databases of people, and a file that no statement may read."""
    (folder / "secret.txt").write_text(SECRET)
    for name in ("people.sqlite", "other.sqlite"):
        with closing(sqlite3.connect(folder / name)) as connection:
            connection.execute("CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, age INTEGER)")
            rows = [(i, f"person number {i} of many", i % 90) for i in range(1, 201)]
            connection.executemany("INSERT INTO people VALUES (?, ?, ?)", rows)
            connection.commit()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def peak_mib(process_id: int) -> float:
    """The most memory the process ever had, 0 if it is gone."""
    try:
        lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


@contextmanager
def watched_peak(process_id: int) -> Iterator[list[float]]:
    """A list that grows by what was seen every few milliseconds: a killed process cannot be asked afterwards."""
    seen, done = [peak_mib(process_id)], threading.Event()

    def watch() -> None:
        while not done.wait(0.003):
            seen.append(peak_mib(process_id))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def run(attack: dict[str, Any], mode: Mode, make: Callable[[Path], None]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name, ExecutionPool(workers=1) as pool:
        folder = Path(name)
        make(folder)
        database = folder / "people.sqlite"
        pool.run(make_job(database, "SELECT 1", mode=mode))
        (process_id,) = pool.process_ids()
        before, idle = contents(folder), peak_mib(process_id)
        sql = attack["sql"].replace("{folder}", name)
        with watched_peak(process_id) as seen:
            execution = pool.run(make_job(database, sql, mode=mode, timeout_s=TIMEOUT_S))
        return {
            "outcome": execution.outcome.value,
            "message": execution.message.replace(name, "…")[:120],
            "seconds": round(execution.seconds, 3),
            "extra_mib": round(max(*seen, peak_mib(process_id)) - idle, 1),
            "files_changed": contents(folder) != before,
        }


def table(results: list[dict[str, Any]]) -> str:
    lines = ["| | attack | evaluation | serving |", "|---|---|---|---|"]
    for result in results:
        cells = []
        for mode in MODES:
            seen = result[mode]
            cells.append(f"{seen['outcome']}, {seen['seconds']:.2f} s, {seen['extra_mib']:.0f} MiB")
        lines.append(f"| {result['kind']} | {result['name']} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def main() -> None:
    results = [
        {"kind": attack["kind"], "name": attack["name"]}
        | {mode: run(attack, mode, make_folder) for mode in MODES}
        for attack in ATTACKS
    ]
    document = {
        "command": "python bench/attacks.py",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "timeout_s": TIMEOUT_S,
        "memory_mib": {mode: LIMITS[mode].memory_bytes // MIB for mode in MODES},
        "attacks": results,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(document) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
