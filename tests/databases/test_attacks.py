"""What a hostile statement can do: nothing to any file, not past its limit, not with more than its memory."""

import threading
from pathlib import Path

import pytest

from attacked import ATTACKS, SECRET, folder, snapshot
from distilsql.databases.job import MIB, Outcome, make_job
from distilsql.databases.pool import ExecutionPool

__all__ = ["folder"]

TIMEOUT_S = 0.25
OVERTIME_S = 20.0  # on a busy machine; what is not stopped takes minutes, or for ever
PATIENT_S = 20.0  # for what has to answer on a busy machine too
MEMORY_BYTES = 96 * MIB


@pytest.fixture(scope="module")
def pool():
    with ExecutionPool(workers=1) as pool:
        yield pool


class PeakWatch(threading.Thread):
    """Looks at a process's memory while it lasts, because a killed one cannot be asked afterwards."""

    def __init__(self, process_id):
        super().__init__(daemon=True)
        self.process_id, self.peak, self.done = process_id, peak_bytes(process_id), threading.Event()

    def run(self):
        while not self.done.wait(0.003):
            self.peak = max(self.peak, peak_bytes(self.process_id))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exception):
        self.peak = max(self.peak, peak_bytes(self.process_id))
        self.done.set()
        self.join()


def peak_bytes(process_id):
    """The most resident memory the process ever had; 0 if it is gone."""
    try:
        status = Path(f"/proc/{process_id}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


@pytest.mark.parametrize("mode", ["serving", "evaluation"])
@pytest.mark.parametrize("attack", ATTACKS, ids=[attack["name"] for attack in ATTACKS])
def test_attack(attack, mode, folder, pool):
    def run(sql, timeout_s=PATIENT_S):
        limits = {"timeout_s": timeout_s, "memory_bytes": MEMORY_BYTES}
        return pool.run(make_job(folder / "people.sqlite", sql, mode=mode, **limits))

    assert run("SELECT count(*) FROM people").rows == ((200,),)
    (process_id,) = pool.process_ids()
    before, idle_bytes = snapshot(folder), peak_bytes(process_id)
    timeout_s = TIMEOUT_S if "TIMEOUT" in attack[mode] else PATIENT_S
    with PeakWatch(process_id) as watch:
        execution = run(attack["sql"].replace("{folder}", str(folder)), timeout_s)
    assert execution.outcome.name in attack[mode], execution
    assert snapshot(folder) == before
    assert SECRET not in repr(execution.rows)
    assert execution.seconds < timeout_s + OVERTIME_S
    assert watch.peak < idle_bytes + MEMORY_BYTES
    # Nothing is left behind: LIKE still ignores case, no temporary table stands before the real one.
    answer = run("SELECT count(*) FROM people WHERE name LIKE 'PERSON%'")
    assert (answer.outcome, answer.rows) == (Outcome.ROWS, ((200,),))


def test_there_are_enough_attacks():
    assert len({attack["name"] for attack in ATTACKS}) >= 40


@pytest.mark.parametrize("mode", ["serving", "evaluation"])
def test_honest_queries_that_look_like_attacks_run(mode, folder, pool):
    """A keyword filter would stop these."""
    for sql in (
        "SELECT 'DROP TABLE people; ATTACH' AS pragma",
        "SELECT replace(name, 'person', 'delete') FROM people LIMIT 1",
        "WITH RECURSIVE t(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM t LIMIT 50) SELECT sum(a) FROM t",
        "SELECT value FROM json_each('[1, 2]')",
        "SELECT name, row_number() OVER (ORDER BY age) FROM people LIMIT 3",
        "WITH vacuum AS (SELECT 1 AS a) SELECT count(*) FROM vacuum",
        "SELECT strftime('%Y', '2020-01-01'), CAST('1' AS INTEGER), round(1.5), printf('%05d', 7)",
        "SELECT count(*) FROM (SELECT 1 FROM people)",
        "-- a comment\nSELECT 1",
        "VALUES (1), (2)",
    ):
        execution = pool.run(make_job(folder / "people.sqlite", sql, mode=mode, memory_bytes=MEMORY_BYTES))
        assert execution.outcome is Outcome.ROWS, (sql, execution)
