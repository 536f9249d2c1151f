"""Answers chosen by what they return: the vote, the retry, and the same choice wherever a question is asked."""

from dataclasses import replace

import pytest

from distilsql.data.load import load_benchmark, load_sql_benchmark
from distilsql.databases.execute import execute
from distilsql.databases.job import Execution, Outcome
from distilsql.errors import DatabaseUnavailable, RunError
from distilsql.inference import candidates
from distilsql.inference.ask import ask
from distilsql.inference.asker import Asker
from distilsql.inference.candidates import Choosing, Tried, choose, choose_all, elect, elect_again, with_error
from distilsql.inference.predict import load_named, predict
from references import in_float64

WARM = 1.2  # warm enough for the embedded teacher to disagree with itself


@pytest.fixture
def tried(world):
    """`tried(sql, …)`: each with what it returns on the singers."""
    path = world / "singers.sqlite"
    return lambda *queries: [Tried(sql, execute(path, sql, mode="serving")) for sql in queries]


@pytest.fixture(scope="module")
def teacher():
    """In float64, so that what shares a batch changes no token."""
    return in_float64(load_named("demo:teacher")[0])


@pytest.fixture(scope="module")
def shop(cache_of_the_tests):
    """Sixteen questions about two databases of the demo."""
    whole = load_sql_benchmark("demo:test-seen")
    names = sorted(whole.databases)[:2]
    few = [[each for each in whole.examples if each.db_id == name][:8] for name in names]
    return replace(
        whole,
        examples=tuple(each for pair in zip(*few, strict=True) for each in pair),
        databases={name: whole.databases[name] for name in names},
    )


def test_the_largest_group_wins_whatever_its_sql_looks_like(tried):
    candidates = tried(
        "SELECT max(age) FROM singer",
        "SELECT count(*) FROM singer",
        "SELECT count(id) FROM singer",
        "SELECT nothing FROM singer",
    )
    chosen = elect(candidates, "sqlite")
    assert chosen.answer.sql == "SELECT count(*) FROM singer"
    assert (chosen.votes, chosen.candidates, chosen.fails) == (2, 4, False)


def test_where_all_fail_that_is_what_is_said(tried):
    failing = tried("SELECT nothing FROM singer", "SELECT less FROM singer")
    first = elect(failing, "sqlite")
    assert first.sentence() == "It fails, and so did every other query that was tried."
    assert elect_again(first, failing, "sqlite").sentence() == first.sentence()
    again = elect_again(first, tried("SELECT min(age) FROM singer"), "sqlite")
    assert again.sentence() == "Written again, as what was written first fails. 1 of 3 return this."


def test_the_greedy_query_breaks_ties_and_failing_ones_have_no_vote(tried):
    one_each = tried(
        "SELECT min(age) FROM singer", "SELECT max(age) FROM singer", "SELECT avg(age) FROM singer"
    )
    assert elect(one_each, "sqlite").answer is one_each[0]
    failing = tried("SELECT a FROM singer", "SELECT b FROM singer", "SELECT a FROM singer", "SELECT 1")
    assert elect(failing, "sqlite").answer.sql == "SELECT 1"
    nothing = elect(failing[:3], "sqlite")
    assert nothing.answer is failing[0]
    assert (nothing.votes, nothing.fails) == (0, True)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("SELECT name, age FROM singer", "SELECT age, name FROM singer", True),  # columns may stand otherwise
        ("SELECT name FROM singer", "SELECT name FROM singer ORDER BY age", True),  # one gives no order
        ("SELECT name FROM singer ORDER BY age", "SELECT name FROM singer ORDER BY age DESC", False),
        ("SELECT name FROM singer ORDER BY age", "SELECT name FROM singer ORDER BY age + 1", True),
        ("SELECT country FROM singer", "SELECT DISTINCT country FROM singer", False),
        ("SELECT 1", "SELECT 1.0", True),
        ("SELECT 1 WHERE 0", "SELECT name FROM singer WHERE 0", True),  # two that are empty
        ("SELECT 1 WHERE 0", "SELECT 1", False),
    ],
)
def test_results_are_the_same_by_the_rules_for_own_pairs(tried, one, other, same):
    first, second = tried(one, other)
    for pair in ((first, second), (second, first)):
        assert elect(pair, "sqlite").votes == (2 if same else 1)


def test_what_was_cut_off_is_not_what_was_whole(tried):
    (whole,) = tried("SELECT 1")
    cut = Tried("SELECT 1", replace(whole.execution, outcome=Outcome.TOO_MANY_ROWS))
    assert elect([whole, cut], "sqlite").votes == 1


def test_a_retry_shows_the_error_within_bounds_and_is_taken_only_if_it_runs(tried):
    failed, again, runs = tried("SELECT nme FROM singer", "SELECT nam FROM singer", "SELECT name FROM singer")
    shown = with_error("Names are short.", failed)
    assert shown.startswith("Names are short. SELECT nme FROM singer fails: ")
    assert "no such column: nme" in shown
    long = Tried("SELECT " + "x" * 5000, Execution(Outcome.SQL_ERROR, message="y\n" * 5000))
    assert len(with_error("", long)) < 600
    assert "\n" not in with_error("", long)
    first = elect([failed], "sqlite")
    assert elect_again(first, [again], "sqlite") is first
    taken = elect_again(first, [again, runs], "sqlite")
    assert (taken.answer, taken.retried, taken.votes, taken.candidates) == (runs, True, 1, 3)


@pytest.mark.slow
def test_one_candidate_is_the_greedy_answer(teacher, shop):
    greedy = predict(teacher, shop)
    assert predict(teacher, shop, choosing=Choosing(retry=False, temperature=WARM)) == greedy
    voted = {
        example.example_id: chosen for example, chosen in choose_all(teacher, shop, Choosing(1, retry=True))
    }
    for example, sql in zip(shop.examples, greedy, strict=True):
        chosen = voted[example.example_id]
        assert chosen.answer.sql == sql or chosen.retried


@pytest.mark.slow
def test_candidates_are_the_same_in_a_batch_alone_and_in_a_file(teacher, shop, tmp_path):
    choosing = Choosing(4, retry=True, temperature=WARM)
    chosen = {example.example_id: found for example, found in choose_all(teacher, shop, choosing)}
    assert len(chosen) == len(shop.examples)
    assert any(found.votes < found.candidates for found in chosen.values()), "they disagree somewhere"
    for example in shop.examples[:3]:
        database = shop.databases[example.db_id]
        alone = choose(teacher, example.question, database, choosing)
        assert alone.answer.sql == chosen[example.example_id].answer.sql
        answer = ask(teacher, example.question, database, choosing=choosing)
        assert (answer.sql, answer.chosen.votes) == (alone.answer.sql, alone.votes)
    written = predict(teacher, shop, tmp_path / "voted.jsonl", choosing=choosing)
    assert written == [chosen[example.example_id].answer.sql for example in shop.examples]


def test_a_retried_question_is_asked_with_its_error(teacher, shop, monkeypatch):
    """A question whose every query fails on a table that is not there: the second prompt holds why."""
    seen = []
    asked = Asker.asked

    def listening(self, question, *, evidence=""):
        seen.append(evidence)
        return asked(self, question, evidence=evidence)

    monkeypatch.setattr(Asker, "asked", listening)
    monkeypatch.setattr(
        "distilsql.inference.candidates.carry_out",
        lambda database, sql: Execution(Outcome.SQL_ERROR, message="no such table: x"),
    )
    example = shop.examples[0]
    chosen = choose(teacher, example.question, shop.databases[example.db_id], Choosing(2, retry=True))
    assert chosen.fails
    assert [bool(evidence) for evidence in seen] == [False, True]
    assert "no such table: x" in seen[1]


def test_a_database_that_is_gone_is_said_and_no_vote_is_held(teacher, shop, tmp_path):
    example = shop.examples[0]
    database = replace(shop.databases[example.db_id], path=tmp_path / "gone.sqlite")
    with pytest.raises(DatabaseUnavailable):
        choose(teacher, example.question, database, Choosing(2))


def test_what_was_answered_before_a_database_went_away_is_kept_and_said(teacher, shop, tmp_path, monkeypatch):
    whole, batches = candidates._Choice.of, []

    def of(self, questions):
        batches.append(len(questions))
        if len(batches) == 2:
            raise DatabaseUnavailable("It is gone.")
        return whole(self, questions)

    monkeypatch.setattr(candidates._Choice, "of", of)
    model = replace(teacher, decoder=replace(teacher.decoder, questions_per_batch=8))
    few, out = shop.take(6, 0), tmp_path / "p.jsonl"
    with pytest.raises(
        DatabaseUnavailable, match=r"gone\. \d of 6 answers are kept in .*\.unfinished\."
    ) as caught:
        predict(model, few, out, choosing=Choosing(2))
    assert f" {batches[0]} of 6" in str(caught.value)
    assert len(predict(model, few, out, choosing=Choosing(2))) == 6
    assert batches[0] + sum(batches[2:]) == 6, "nothing is asked twice"


def test_what_is_begun_otherwise_is_not_gone_on_with(teacher, shop, tmp_path):
    few = shop.take(3, 0)
    unfinished = tmp_path / "p.jsonl.unfinished"
    unfinished.write_text(f'{{"answers_of": "{teacher.fingerprint()}"}}\n' + line_of(few, "SELECT 'greedy'"))
    assert "SELECT 'greedy'" not in predict(teacher, few, tmp_path / "p.jsonl", choosing=Choosing(2))


def line_of(benchmark, sql):
    example = benchmark.examples[0]
    return f'{{"example_id": "{example.example_id}", "question": "{example.question}", "sql": "{sql}"}}\n'


def test_misuse_is_said(teacher, shop, world):
    sampled = replace(teacher, decoder=replace(teacher.decoder, temperature=0.5))
    with pytest.raises(RunError, match="--temperature"):
        predict(sampled, shop, choosing=Choosing(2))
    words = load_benchmark([{"instruction": "Say yes.", "output": "yes"}])
    with pytest.raises(RunError, match="in words"):
        predict(teacher, words, choosing=Choosing(2))
