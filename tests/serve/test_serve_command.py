"""`distilsql serve` and `ask` as processes: what they say, how they end, and misuse answered with a sentence."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import psutil
import pytest

from killed import kill_workers

LIMIT_S = 180.0


@pytest.fixture
def start(commands, tmp_path):
    """`start(*arguments)`: a `distilsql` process in a session of its own, and its files of output."""
    return lambda *arguments, **environment: commands.start(*arguments, cwd=tmp_path, **environment)


def url_when_ready(process, folder):
    deadline = time.monotonic() + LIMIT_S
    while not (found := re.search(r"Page (\S+)", (folder / "out.txt").read_text())):
        assert process.poll() is None, (folder / "err.txt").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found[1]


def post(url, body, **headers):
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json", **headers}
    )
    try:
        with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.slow
def test_a_second_signal_stops_it_at_once_without_a_traceback(start, tmp_path, database):
    process = start("serve", "demo:teacher", "--database", str(database.path), "--port", "0")
    url_when_ready(process, tmp_path)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    assert process.wait(LIMIT_S) in (128 + signal.SIGTERM, 128 + signal.SIGINT)
    said = (tmp_path / "err.txt").read_text()
    assert "To resume: distilsql serve" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_it_serves_until_a_signal_and_says_how_to_go_on(start, tmp_path, database, examples, number):
    process = start("serve", "demo:teacher", "--database", str(database.path), "--port", "0")
    url = url_when_ready(process, tmp_path)
    assert url.startswith("http://127.0.0.1:")
    status, answer = post(f"{url}api/ask", {"question": examples[0].question})
    assert (status, answer["result"]["outcome"]) == (200, "rows")
    # A worker that is killed is replaced: the process goes on.
    kill_workers(child.pid for child in psutil.Process(process.pid).children())
    assert post(f"{url}api/run", {"sql": "SELECT 1"})[1]["rows"] == [[1]]
    process.send_signal(number)
    assert process.wait(LIMIT_S) == 128 + number
    said = (tmp_path / "err.txt").read_text()
    assert "Stopping as soon as the answers under way are sent" in said
    assert "To resume: distilsql serve demo:teacher" in said
    assert "Traceback" not in said


def test_a_port_in_use_is_said_before_anything_is_loaded(start, tmp_path, database):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        process = start("serve", "demo:teacher", "--database", str(database.path), "--port", port)
        assert process.wait(LIMIT_S) == 1
    said = (tmp_path / "err.txt").read_text()
    assert f"127.0.0.1 port {port} cannot be listened on" in said
    assert "--port" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["serve", "nowhere"], {}, "nowhere is not a run folder"),
        (["serve", "demo:nobody", "--database", "DB"], {}, "There is no model demo:nobody"),
        (["serve", "demo:teacher"], {}, "give one: --database"),
        (["serve", "demo:teacher", "--database", "missing.sqlite"], {}, "missing.sqlite"),
        (["serve", "demo:teacher", "--database", "DB", "--host", "0.0.0.0"], {}, "DISTILSQL_API_KEY"),
        (
            ["serve", "demo:teacher", "--database", "DB", "--host", "no.such.host"],
            {"DISTILSQL_API_KEY": "k"},
            "--host",
        ),
        (["serve", "demo:teacher", "--database", "DB", "--feedback", "pairs.csv"], {}, ".jsonl"),
        (
            ["serve", "demo:teacher", "--database", "DB", "--feedback", "/proc/x.jsonl"],
            {},
            "cannot be written",
        ),
        (["mcp", "nowhere"], {}, "nowhere is not a run folder"),
        (["ask", "demo:teacher", "How many?"], {}, "give one: --database"),
    ],
)
def test_misuse_is_a_sentence(start, tmp_path, database, arguments, environment, words):
    words_given = [str(database.path) if word == "DB" else word for word in arguments]
    process = start(*words_given, **environment)
    assert process.wait(LIMIT_S) == 1
    said = (tmp_path / "err.txt").read_text()
    assert words in " ".join(said.split())
    assert "Traceback" not in said


def test_a_missing_extra_is_named(start, tmp_path, database):
    program = (
        "import sys, importlib.util as util\nfind = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'uvicorn' else find(name, *rest)\n"
        "from distilsql.cli import main\n"
        f"sys.argv = ['distilsql', 'serve', 'demo:teacher', '--database', {str(database.path)!r}]\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert "pip install 'distilsql[serve]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_ask_in_a_terminal(start, tmp_path, database, examples):
    process = start("ask", "demo:teacher", examples[0].question, "--database", str(database.path))
    assert process.wait(LIMIT_S) == 0
    assert (tmp_path / "out.txt").read_text().startswith("SELECT")
