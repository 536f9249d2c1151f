"""Does a server stand a long load while its database is written to, deleted and brought back, and workers are killed?

    python bench/serve_load.py --seconds 600

Serves a copy of a database of the demo and asks it without pause from `--clients` threads, over HTTP as the page does.
Beside it a writer adds rows and makes and drops a table; a third into the time the file is gone for a few seconds; a
worker is killed every few seconds. Allowed are answers (200), "too much is asked" (429) and, while the file is gone or
locked, "the database cannot be read" (503). Anything else, a question without an answer, or no answer after the end of
the disturbance is a fault: it is named, and the status is 1. Writes bench/results/serve_load.json, one entry a name.
"""

import argparse
import contextlib
import json
import os
import shutil
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

from distilsql.threads import wait_briefly

wait_briefly()

import psutil
import torch

from distilsql.data.load import load_sql_benchmark
from distilsql.databases.database import open_database
from distilsql.databases.execute import shared_pool
from distilsql.files import write_json
from distilsql.inference.candidates import Choosing
from distilsql.serve.service import Service
from serve import DB_ID, served_model, serving

RESULTS = Path(__file__).with_name("results") / "serve_load.json"
GONE_S, KILL_EVERY_S, TIMEOUT_S = 5.0, 7.0, 120.0
MIB = 2**20


class Load:
    """Clients that ask without pause, and what they got: statuses, seconds of answers, faults."""

    def __init__(self, url: str, questions: list[str]) -> None:
        self.url, self.questions = url, questions
        self.statuses: Counter[int] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.faults: list[str] = []
        self.may_be_gone = threading.Event()
        self.stop = threading.Event()
        self._lock = threading.Lock()

    def ask_on(self, number: int) -> None:
        while not self.stop.is_set():
            self.ask(self.questions[number % len(self.questions)])
            number += 7

    def ask(self, question: str) -> int:
        """The status of one question; 0 where nothing came."""
        gone_before = self.may_be_gone.is_set()
        body = json.dumps({"question": question}).encode()
        request = urllib.request.Request(f"{self.url}api/ask", body, {"Content-Type": "application/json"})
        started = time.perf_counter()
        outcome = message = ""
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                status, found = answer.status, json.load(answer)
            outcome = found["result"]["outcome"]
        except urllib.error.HTTPError as error:
            status, message = error.code, error.read().decode()
        except OSError as error:
            status, message = 0, repr(error)
        with self._lock:
            self.statuses[status] += 1
            if status == 200:
                self.outcomes[outcome] += 1
                self.seconds.append(time.perf_counter() - started)
            elif status not in (429, 503) or (
                status == 503 and not (gone_before or self.may_be_gone.is_set() or "locked" in message)
            ):
                self.faults.append(f"{status}: {message[:300]}")
        if status in (429, 503):
            time.sleep(0.2)
        return status


def write_on(path: Path, stop: threading.Event, written: Counter[str]) -> None:
    """Rows added many times a second, and now and then a table made or dropped."""
    with contextlib.closing(sqlite3.connect(path, timeout=1)) as plain:
        (table,) = plain.execute("SELECT name FROM sqlite_master WHERE type = 'table' LIMIT 1").fetchone()
        columns = [name for _, name, *_ in plain.execute(f'PRAGMA table_info("{table}")')]
    names = ", ".join(f'"{name}"' for name in columns[1:])
    number = 0
    while not stop.wait(0.05):
        number += 1
        try:
            with (
                contextlib.closing(
                    sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=1)
                ) as connection,
                connection,
            ):
                connection.execute(f'INSERT INTO "{table}" ({names}) SELECT {names} FROM "{table}" LIMIT 1')
                written["rows"] += 1
                if number % 100 == 0:
                    connection.execute("DROP TABLE IF EXISTS visit")
                    connection.execute(f"CREATE TABLE visit (id INTEGER PRIMARY KEY, day{number} TEXT)")
                    written["tables"] += 1
        except sqlite3.Error:
            written["refused"] += 1


def disturb(path: Path, load: Load, seconds: float) -> Counter[str]:
    """A worker killed every few seconds, and the file away for a while; returns what was done."""
    done: Counter[str] = Counter()
    started, gone = time.monotonic(), False
    while (passed := time.monotonic() - started) < seconds:
        time.sleep(min(KILL_EVERY_S, max(seconds - passed, 0.1)))
        for process_id in shared_pool().process_ids()[:1]:
            psutil.Process(process_id).kill()  # a worker of ours
            done["workers killed"] += 1
        if not gone and time.monotonic() - started > seconds / 3:
            gone = True
            load.may_be_gone.set()
            os.replace(path, path.with_suffix(".away"))
            time.sleep(GONE_S)
            os.replace(path.with_suffix(".away"), path)
            time.sleep(1)
            load.may_be_gone.clear()
            done["times deleted"] += 1
    return done


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="demo:teacher")
    parser.add_argument("--name", default="demo-teacher")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--candidates", type=int, default=1)
    parser.add_argument("--longest", type=int, default=40, help="tokens of a query, at most")
    arguments = parser.parse_args()
    benchmark = load_sql_benchmark("demo:test-seen")
    questions = [each.question for each in benchmark.examples if each.db_id == DB_ID]
    model = served_model(arguments.model, arguments.longest)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{DB_ID}.sqlite"
        shutil.copy(str(benchmark.databases[DB_ID].path), path)
        choosing = Choosing(arguments.candidates, retry=arguments.candidates > 1)
        with Service(model, open_database(path), name=arguments.name, choosing=choosing) as service:
            service.warm()
            with serving(service) as url:
                found = measured(url, path, questions, arguments)
    found = {"model": arguments.model, "threads": torch.get_num_threads(), **found}
    print(json.dumps(found, indent=2))
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    write_json(RESULTS, {**known, arguments.name: found})
    sys.exit(1 if found["faults"] else 0)


def measured(url: str, path: Path, questions: list[str], arguments: argparse.Namespace) -> dict[str, object]:
    load, process = Load(url, questions), psutil.Process()
    for question in questions[: arguments.clients]:
        load.ask(question)
    before, memory = process.num_threads(), process.memory_info().rss
    written: Counter[str] = Counter()
    clients = [threading.Thread(target=load.ask_on, args=(number,)) for number in range(arguments.clients)]
    writer = threading.Thread(target=write_on, args=(path, load.stop, written))
    for thread in (*clients, writer):
        thread.start()
    done = disturb(path, load, arguments.seconds)
    load.stop.set()
    for thread in (*clients, writer):
        thread.join()
    after = Counter(load.ask(question) for question in questions[:8])
    if set(after) != {200}:
        load.faults.append(f"afterwards: {dict(after)}")
    answered = sorted(load.seconds)
    return {
        "seconds": arguments.seconds,
        "clients": arguments.clients,
        "candidates": arguments.candidates,
        "statuses": dict(load.statuses),
        "outcomes": dict(load.outcomes),
        "disturbed": dict(done),
        "written": dict(written),
        "median_s": round(statistics.median(answered), 3),
        "p95_s": round(answered[int(0.95 * (len(answered) - 1))], 3),
        "longest_s": round(answered[-1], 3),
        "threads_before_and_after": [before, process.num_threads()],
        "memory_grew_mib": round((process.memory_info().rss - memory) / MIB, 1),
        "faults": load.faults[:20],
    }


if __name__ == "__main__":
    main()
