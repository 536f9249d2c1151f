"""How soon a question is answered by a server, and how many questions a second at once.

    python bench/serve.py --model models/smollm2-135m --name smollm2-135m

Starts the whole application on a free port of loopback and asks it over HTTP, as the page does, about one database of
the demo. `first_s` is what the database's prompt took at the start; `load` what so many clients got that ask one
question after another: questions a second of all, and seconds by question. Writes bench/results/serve.json, one entry
a name.
"""

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from distilsql.threads import wait_briefly

wait_briefly()

import torch
import uvicorn

from distilsql.data.load import load_sql_benchmark
from distilsql.files import write_json
from distilsql.inference.predict import load_any, load_named
from distilsql.runs.sections import PromptSettings
from distilsql.serve.app import make_app
from distilsql.serve.feedback import Feedback
from distilsql.serve.guard import names_of
from distilsql.serve.server import _Server, listen, url_of
from distilsql.serve.service import Service

RESULTS = Path(__file__).with_name("results") / "serve.json"
DB_ID = "shop"


def post(url: str, body: dict[str, str]) -> float:
    """Seconds until the whole answer has come."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    started = time.perf_counter()
    with urllib.request.urlopen(request, timeout=600) as answer:
        json.load(answer)
    return time.perf_counter() - started


def at_once(url: str, questions: list[str], clients: int) -> dict[str, float]:
    """`clients` threads share the questions."""
    todo, seconds, lock = list(questions), [], threading.Lock()

    def ask() -> None:
        while True:
            with lock:
                if not todo:
                    return
                question = todo.pop()
            taken = post(f"{url}api/ask", {"question": question})
            with lock:
                seconds.append(taken)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        "clients": clients,
        "questions": len(questions),
        "questions_per_s": round(len(questions) / (time.perf_counter() - started), 2),
        "median_s": round(statistics.median(seconds), 3),
        "p95_s": round(sorted(seconds)[int(0.95 * (len(seconds) - 1))], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="demo:teacher")
    parser.add_argument("--name", default="demo-teacher")
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--longest", type=int, default=40, help="tokens of a query, at most")
    arguments = parser.parse_args()
    if arguments.model.startswith("demo:"):
        model = load_named(arguments.model)[0]
    else:
        prompt = {
            "max_completion_tokens": arguments.longest,
            "schema_filter": "when_needed",
            "max_prompt_tokens": 1024,
        }
        model = load_any(arguments.model, PromptSettings.model_validate(prompt))
    benchmark = load_sql_benchmark("demo:test-seen")
    questions = [each.question for each in benchmark.examples if each.db_id == DB_ID][: arguments.questions]
    database = benchmark.databases[DB_ID]
    with Service(model, database, name=arguments.name) as service, listen("127.0.0.1", 0) as bound:
        first = service.warm()
        feedback = Feedback(Path(tempfile.gettempdir()) / "feedback.jsonl")
        app = make_app(service, feedback=feedback, names=names_of("127.0.0.1"))
        server = _Server(uvicorn.Config(app, log_config=None))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[bound])), daemon=True)
        thread.start()
        url = url_of(bound)
        found = {
            "model": arguments.name,
            "precision": model.decoder.model.precision,
            "threads": torch.get_num_threads(),
            "cores": len(os.sched_getaffinity(0)),
            "prefix_tokens": len(service.asker.asked("?").tree.prefix),
            "first_s": round(first, 3),
            "load": [at_once(url, questions, clients) for clients in (1, 8, 32)],
        }
        server.should_exit = True
        thread.join()
    print(json.dumps(found, indent=2))
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    write_json(RESULTS, {**known, arguments.name: found})


if __name__ == "__main__":
    main()
