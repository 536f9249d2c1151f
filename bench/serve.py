"""How soon a question is answered by a server, and how many questions a second at once.

    python bench/serve.py --model models/smollm2-135m --name smollm2-135m --threads 2

Starts the whole application on a free port of loopback and asks it over HTTP, as the page does, about one database of
the demo. `first_s` is what the database's prompt took at the start; `load` what so many clients got that ask one
question after another: questions a second of all, and seconds by question; `first_question_s` is the first one after
that. With `--llama-cpp f16 q8_0` the model is exported, and llama.cpp's server (package xllamacpp) is asked the same
prompts, cached alike and decoded together alike; it runs no SQL. Writes bench/results/serve.json, one entry a name.
"""

import argparse
import contextlib
import itertools
import json
import os
import statistics
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from distilsql.threads import wait_briefly
from serving import set_threads

wait_briefly()
set_threads()

import torch

from distilsql.data.load import load_sql_benchmark
from distilsql.databases.database import Database
from distilsql.export.export import export
from distilsql.export.llama_cpp import LlamaCpp
from distilsql.files import write_json
from distilsql.inference.asker import AskedQuestion, Asker
from distilsql.inference.model import Model
from distilsql.inference.predict import load_any, load_named
from distilsql.models.generate import generate_trees
from distilsql.models.tree_model import DecodingWeights
from distilsql.runs.sections import PromptSettings
from distilsql.serve.app import make_app
from distilsql.serve.feedback import Feedback
from distilsql.serve.guard import names_of
from distilsql.serve.service import Service
from serving import running

RESULTS = Path(__file__).with_name("results") / "serve.json"
DB_ID = "shop"
COMPARED = 16  # questions that are answered from whole weights, too


def post(url: str, body: dict[str, str]) -> float:
    """Seconds until the whole answer has come."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    started = time.perf_counter()
    with urllib.request.urlopen(request, timeout=600) as answer:
        json.load(answer)
    return time.perf_counter() - started


def at_once(ask_one: Callable[[str], float], questions: list[str], clients: int) -> dict[str, float]:
    """`clients` threads share the questions; `ask_one` returns the seconds of one."""
    todo, seconds, lock = list(questions), [], threading.Lock()

    def ask() -> None:
        while True:
            with lock:
                if not todo:
                    return
                question = todo.pop()
            taken = ask_one(question)
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


def served_model(name: str, longest: int) -> Model:
    """An embedded model, a run's student, or any folder of weights with a prompt of our own."""
    if name.startswith("demo:") or (Path(name) / "recipe.toml").exists():
        return load_named(name)[0]
    prompt = {"max_completion_tokens": longest, "schema_filter": "when_needed", "max_prompt_tokens": 1024}
    return load_any(name, PromptSettings.model_validate(prompt))


@contextlib.contextmanager
def serving(service: Service) -> Iterator[str]:
    """The whole application on a free port of loopback; yields its URL."""
    feedback = Feedback(Path(tempfile.gettempdir()) / "feedback.jsonl")
    with running(make_app(service, feedback=feedback, names=names_of("127.0.0.1"))) as url:
        yield url


def changed_by(
    weights: DecodingWeights, model: Model, database: Database, questions: list[str]
) -> dict[str, Any]:
    """Has the model decode from these weights from now on; what that changes of its greedy completions."""
    asker, decoder = Asker(model, database), model.decoder
    trees = [asker.asked(question).tree for question in questions[:COMPARED]]
    before = [generate_trees(decoder.model, [tree], decoder.options())[0][0] for tree in trees]
    decoder.model.decode_in(weights)
    after = [generate_trees(decoder.model, [tree], decoder.options())[0][0] for tree in trees]
    same_tokens = [
        sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
        for one, other in zip(before, after, strict=True)
    ]
    return {
        "weights": weights,
        "changed": {
            "questions": len(trees),
            "same_completions": sum(one == other for one, other in zip(before, after, strict=True)),
            "tokens": sum(map(len, before)),
            "tokens_until_the_first_difference": sum(same_tokens),
        },
    }


def llama_cpp_rows(
    model: Model, prompts: dict[str, AskedQuestion], arguments: argparse.Namespace
) -> dict[str, list[dict[str, float]]]:
    """The same prompts to llama.cpp's server, by kind of file: as many contexts as there are clients."""
    found: dict[str, list[dict[str, float]]] = {}
    tokens = {question: [*asked.tree.prefix, *asked.tree.questions[0]] for question, asked in prompts.items()}
    longest = model.decoder.max_new_tokens
    context = -(-(max(map(len, tokens.values())) + longest) // 64) * 64
    with tempfile.TemporaryDirectory() as folder:
        exported = export(model, Path(folder) / "out", name="model", gguf=arguments.llama_cpp)
        for kind, path in exported.files.items():
            for clients in arguments.clients:
                with LlamaCpp(
                    path,
                    context_tokens=context,
                    threads=torch.get_num_threads(),
                    eos_token_id=int(model.decoder.tokenizer.eos_token_id),
                    at_once=clients,
                ) as file:

                    def ask_one(question: str, file: LlamaCpp = file) -> float:
                        started = time.perf_counter()
                        file.write(tokens[question], longest, with_logps=False)
                        return time.perf_counter() - started

                    at_once(
                        ask_one, list(tokens)[:clients], clients
                    )  # the shared prefix is run in each context
                    found.setdefault(kind, []).append(at_once(ask_one, list(tokens), clients))
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="demo:teacher")
    parser.add_argument("--name", default="demo-teacher")
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--longest", type=int, default=40, help="tokens of a query, at most")
    parser.add_argument("--threads", type=int, help="default: OMP_NUM_THREADS, or by the model's size")
    parser.add_argument("--weights", choices=("whole", "float16", "int8"), default="whole")
    parser.add_argument("--no-drafts", action="store_true")
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 8, 32])
    parser.add_argument("--llama-cpp", nargs="*", default=[], help="kinds of GGUF: f16, q8_0, …")
    arguments = parser.parse_args()
    model = served_model(arguments.model, arguments.longest)
    benchmark = load_sql_benchmark("demo:test-seen")
    questions = [each.question for each in benchmark.examples if each.db_id == DB_ID][: arguments.questions]
    database = benchmark.databases[DB_ID]
    weights = arguments.weights
    changed = {} if weights == "whole" else changed_by(weights, model, database, questions)
    with Service(model, database, name=arguments.name) as service, serving(service) as url:
        if arguments.no_drafts:
            service._writer.drafted = 0
        first = service.warm()

        def ask_one(question: str) -> float:
            return post(f"{url}api/ask", {"question": question})

        first_question_s = ask_one(questions[-1])
        found = {
            "model": arguments.name,
            "precision": model.decoder.model.precision,
            "threads": torch.get_num_threads(),
            "cores": len(os.sched_getaffinity(0)),
            "prefix_tokens": len(service.asker.asked("?").tree.prefix),
            "first_s": round(first, 3),
            "first_question_s": round(first_question_s, 3),
            "load": [at_once(ask_one, questions, clients) for clients in arguments.clients],
            "drafted": service.drafted_tokens(),
            **changed,
        }
        prompts = {question: service.asker.asked(question) for question in questions}
    if arguments.llama_cpp:
        found["llama.cpp"] = llama_cpp_rows(model, prompts, arguments)
    print(json.dumps(found, indent=2))
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    write_json(RESULTS, {**known, arguments.name: found})


if __name__ == "__main__":
    main()
