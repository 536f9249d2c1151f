"""Many requests at once: whatever arrives when, and whatever ends it, the same is asked, kept and paid for."""

import json
import os
import signal
import subprocess
import sys
import threading
import zlib

import pytest

from distilsql import at_once
from distilsql.errors import ModelError
from distilsql.synthesis.source import open_source
from distilsql.synthesis.synthesise import synthesise
from distilsql.synthesis.teacher import endpoint as endpoint_module
from distilsql.synthesis.teacher.asker import Answers, BudgetSpent, Reply, Request
from distilsql.synthesis.teacher.endpoint import Endpoint
from distilsql.synthesis.teacher.wording import ANSWERS_PER_QUESTION, TeacherWording
from fake_api import FakeApi

LIMIT_S = 120.0  # generous: what is waited for comes in a second on an idle machine


class Killed(BaseException):
    pass


def asking(*texts):
    return [Request([{"role": "user", "content": text}]) for text in texts]


def last(request):
    return request.messages[-1]["content"]


class Shuffled:
    """An asker that replies in an order of its own, and dies after so many replies. What a reply costs follows from the
    request: often more than it was estimated at."""

    name, is_remote, max_answer_tokens = "m", False, 400

    def __init__(self, text=lambda request: "SELECT 1", *, seed=0, dies_after=None):
        self.text, self.seed, self.dies_after = text, seed, dies_after
        self.asked, self.most = [], 0

    def ask(self, requests, replied):
        self.most = max(self.most, len(requests))
        for number in sorted(range(len(requests)), key=lambda n: zlib.crc32(f"{self.seed}/{n}".encode())):
            if len(self.asked) == self.dies_after:
                raise Killed
            request = requests[number]
            self.asked.append(request)
            tokens = 30 + zlib.crc32(last(request).encode()) % 400
            replied(number, Reply((self.text(request),) * request.samples, tokens))


@pytest.fixture
def api():
    api = FakeApi()
    yield api
    api.close()


# ---- answers ---------------------------------------------------------------------------------------------------


def test_texts_are_those_of_their_requests_whatever_came_first(tmp_path):
    asker = Shuffled(text=lambda request: f"about {last(request)}")
    answers = Answers(tmp_path / "a.jsonl", asker)
    counted = []
    asked = asking("a", "b", "a", "c")
    texts = answers.ask(asked, lambda: counted.append(1))
    assert texts == [("about a",), ("about b",), ("about a",), ("about c",)]
    assert (len(asker.asked), len(counted)) == (3, 4), "the same request is asked once"
    assert answers.ask(asked, lambda: counted.append(1)) == texts
    assert (len(asker.asked), len(counted)) == (3, 8)


def test_what_came_before_a_kill_is_kept(tmp_path):
    requests = asking(*"abcdefg")
    with pytest.raises(Killed):
        Answers(tmp_path / "a.jsonl", Shuffled(dies_after=4)).ask(requests)
    rest = Shuffled()
    answers = Answers(tmp_path / "a.jsonl", rest)
    answers.ask(requests)
    assert len(rest.asked) == 3
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 7


def test_a_file_from_before_requests_were_asked_together_is_read(tmp_path):
    key = "3760ef3ca125a0635d9d2dadb4f4c79f54c3e5a738e7b4d026dba760012a8c9f"
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"request": key, "texts": ["old"], "tokens": 7}) + "\n")
    answers = Answers(file, Shuffled())
    assert answers.ask(asking("hello")) == [("old",)]


@pytest.mark.parametrize("budget", range(0, 4000, 130))
def test_a_budget_lets_through_what_it_does_one_request_at_a_time(tmp_path, budget):
    requests = asking(*(f"{number} " * number for number in range(1, 15)))
    found = []
    for name, groups in (("one", [[request] for request in requests]), ("all", [requests])):
        asker = Shuffled()
        answers = Answers(tmp_path / f"{name}-{budget}", asker, budget)
        try:
            for group in groups:
                answers.ask(group)
        except BudgetSpent:
            pass
        found.append((sorted(map(last, asker.asked)), answers.spent))
    assert found[0] == found[1]


# ---- wording ---------------------------------------------------------------------------------------------------


def rewords(known):
    """A teacher that rewords most questions, and answers most as their queries do."""

    def text(request):
        asked, number = last(request), zlib.crc32(last(request).encode())
        if "Question: " not in asked:
            question = asked.removeprefix("Reword this question: ")
            return question if number % 5 == 0 else f'**Question:** "Tell me: {question}"'
        question = asked.rpartition("Question: ")[2]
        return "SELECT 1" if number % 4 == 0 else known[question.removeprefix("Tell me: ")]

    return text


@pytest.mark.slow
def test_neither_groups_nor_order_nor_kills_nor_the_budget_change_what_is_worded(shop, tmp_path):
    """Against one question after another."""

    def wording(queries, checker, world):
        known = {question: query.sql for query in queries for question in query.questions}

        def worded(name, group, budget, *, seed=0, kills=()):
            file = tmp_path / name
            for dies_after in kills:
                asker = Shuffled(rewords(known), seed=seed, dies_after=dies_after)
                with pytest.raises(Killed):
                    TeacherWording(Answers(file, asker, budget), True, group)(queries, checker, world)
            asker = Shuffled(rewords(known), seed=seed)
            wording = TeacherWording(Answers(file, asker, budget), True, group)
            pairs = wording(queries, checker, world)
            kept = [json.loads(line)["request"] for line in file.read_text().splitlines()]
            assert len(set(kept)) == len(kept), "nothing was asked twice"
            return (
                pairs,
                set(kept),
                wording.answers.spent,
                wording.is_spent,
                wording.accepted,
                wording.refused,
            )

        whole = worded("whole", 64, None)
        assert 0 < whole[4] < sum(map(len, whole[0]))
        for part in (0.6, 0.85, 2):
            budget = int(part * whole[2])
            alone = worded(f"alone {part}", 1, budget)
            assert alone[3] is (part < 1)
            assert worded(f"many {part}", 7, budget, seed=1) == alone
            killed = worded(f"killed {part}", 64, budget, seed=2, kills=(9, 6))
            assert killed[:4] == alone[:4]
        return whole[0]

    synthesise(open_source(shop), tmp_path / "out", pairs=16, wording=wording, workers=2)


def test_a_group_is_asked_at_once(shop, tmp_path):
    def wording(queries, checker, world):
        known = {question: query.sql for query in queries for question in query.questions}
        asker = Shuffled(rewords(known))
        return TeacherWording(Answers(tmp_path / "a", asker), True)(queries, checker, world)

    asker_most = []
    ask = Shuffled.ask

    def noted(self, requests, replied):
        asker_most.append((len(requests), requests[0].samples if requests else 0))
        ask(self, requests, replied)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Shuffled, "ask", noted)
        synthesise(open_source(shop), tmp_path / "out", pairs=16, wording=wording, workers=2)
    (_, tried), (reworded, once), (_, checked) = asker_most
    assert (tried, reworded, once, checked) == (ANSWERS_PER_QUESTION, 16, 1, ANSWERS_PER_QUESTION)


# ---- an endpoint -------------------------------------------------------------------------------------------------


def test_as_many_requests_are_in_flight_as_may_be(api, tmp_path):
    together, lock, counts = threading.Barrier(3), threading.Lock(), [0, 0]

    def before(body):
        with lock:
            counts[0] += 1
            counts[1] = max(counts)
        together.wait(LIMIT_S)  # for two others
        with lock:
            counts[0] -= 1

    api.before = before
    api.reword = lambda question: f"about {question}"
    answers = Answers(tmp_path / "a.jsonl", Endpoint(api.url, "m", at_once=3))
    texts = answers.ask(asking(*map(str, range(12))))
    assert texts == [(f"about {number}",) for number in range(12)]
    assert counts == [0, 3]


def test_one_refusal_ends_it_and_what_is_in_flight_is_kept(api, tmp_path, monkeypatch):
    stops, sent = [], threading.Barrier(4)

    def each(*arguments, stop, **options):
        stops.append(stop)
        return at_once.each(*arguments, stop=stop, **options)

    def before(body):
        sent.wait(LIMIT_S)
        if last_of(body) == "bad":
            return 401
        assert stops[0].wait(LIMIT_S), "the others' answers come later"
        return None

    monkeypatch.setattr(endpoint_module, "each", each)
    api.before = before
    answers = Answers(tmp_path / "a.jsonl", Endpoint(api.url, "m", at_once=4))
    with pytest.raises(ModelError, match="status 401"):
        answers.ask(asking("a", "b", "bad", "c", "d", "e", "f"))
    assert {last_of(body) for body in api.requests} == {"a", "b", "bad", "c"}
    assert {text for text in "abcdef" if answers.kept(*asking(text))} == set("abc")


def test_others_are_not_tried_again_when_one_is_given_up(api, tmp_path):
    """It would wait seven seconds for another attempt."""
    api.before = lambda body: 503 if last_of(body) == "busy" else 401
    endpoint = Endpoint(api.url, "m", at_once=2)
    with pytest.raises(ModelError, match="status 401"):
        Answers(tmp_path / "a.jsonl", endpoint).ask(asking("busy", "refused"))
    assert len(api.requests) <= 3


def last_of(body):
    return body["messages"][-1]["content"]


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_what_was_answered_when_a_signal_comes_is_kept_and_the_command_goes_on(shop, api, tmp_path, number):
    """Some requests hang: Ctrl-C does not wait for them."""
    out, hangs, free = tmp_path / "out", threading.Semaphore(0), threading.Event()
    known = {}

    def answer(question):
        return known.get(question.removeprefix("Tell me: "), "SELECT 1")

    def before(body):
        if len(api.requests) > 12 and not free.is_set():
            hangs.release()
            free.wait(LIMIT_S)

    api.sql_for, api.before = answer, before
    synthesise(open_source(shop), out, pairs=16, workers=2)
    for split in ("train", "valid", "test"):
        lines = (out / f"{split}.jsonl").read_text().splitlines()
        known |= {pair["question"]: pair["sql"] for pair in map(json.loads, lines)}
    command = [sys.executable, "-m", "distilsql", "synth", str(shop), "--out", str(out), "--pairs", "16"]
    command += ["--endpoint", api.url, "--model", "m", "--share-values", "--at-once", "4"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        for _ in range(4):
            assert hangs.acquire(timeout=LIMIT_S)
        process.send_signal(number)
        assert process.wait(LIMIT_S) == (130 if number == signal.SIGINT else -signal.SIGKILL)
        assert not free.is_set()
    finally:
        process.kill()
        process.communicate()
    kept = len((out / "answers.jsonl").read_text().splitlines())
    asked = len(api.requests)
    assert kept == asked - 4
    free.set()
    subprocess.run(command, check=True, capture_output=True)
    lines = (out / "answers.jsonl").read_text().splitlines()
    assert len(lines) == len({json.loads(line)["request"] for line in lines}) == len(api.requests) - 4
