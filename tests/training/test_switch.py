"""SWITCH's trace counts what the completions say, by position, and survives a checkpoint."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilsql.training.sources import switch
from distilsql.training.sources.switch import SwitchTrace
from distilsql.training.sources.switch_engine import SwitchedCompletion, SwitchOptions, ThresholdSchedule
from distilsql.training.train import train

STEPS = st.lists(st.tuples(st.integers(0, 50), st.booleans(), st.floats(0, 0.69)), max_size=6)
COMPLETIONS = st.lists(
    st.builds(
        lambda steps, passes: (
            SwitchedCompletion(*zip(*steps, strict=True), passes)
            if steps
            else SwitchedCompletion((), (), (), passes)
        ),
        STEPS,
        st.integers(1, 6),
    ),
    max_size=6,
)
OPTIONS = SwitchOptions(0.4, 0.2, ThresholdSchedule.LINEAR)


def traced(completions, trace=None) -> SwitchTrace:
    trace = trace or SwitchTrace(OPTIONS)
    for completion in completions:
        trace.add(completion)
    return trace


@given(COMPLETIONS)
def test_every_position_sums_the_completions_that_reach_it(completions):
    found = traced(completions).summary()
    reach = [
        [one for one in completions if len(one.tokens) > t]
        for t in range(max((len(one.tokens) for one in completions), default=0))
    ]
    if not reach:
        assert found == {}
        return
    switch = found["switch"]
    assert switch["tokens"] == [len(some) for some in reach]
    for name, of in (("teacher_share", "from_teacher"), ("divergence", "divergence")):
        means = [sum(getattr(one, of)[t] for one in some) / len(some) for t, some in enumerate(reach)]
        assert switch[name] == pytest.approx(means)
    assert switch["threshold"] == pytest.approx([max(0.0, 0.4 * (1 - 0.2 * t)) for t in range(len(reach))])
    passes = sum(one.teacher_passes for one in completions)
    assert switch["teacher_passes_per_token"] == passes / sum(len(one.tokens) for one in completions)


@given(COMPLETIONS, COMPLETIONS)
def test_a_trace_that_went_through_json_goes_on_as_if_never_stopped(before, after):
    resumed = SwitchTrace(OPTIONS)
    resumed.load(json.loads(json.dumps(traced(before).state())))
    assert traced(after, resumed).summary() == traced(before + after).summary()


def test_a_run_records_every_completion_it_trained_on(recipe, tmp_path, monkeypatch):
    written = []
    real = switch.switch_generate

    def spy(*args, **keys):
        trees = real(*args, **keys)
        written.extend(completion for tree in trees for completion in tree)
        return trees

    monkeypatch.setattr(switch, "switch_generate", spy)
    run = train(recipe("switch", "train.steps=2", "switch.threshold=0.02"), tmp_path / "run")
    summary = json.loads(run.summary.read_text())
    expected = SwitchTrace(SwitchOptions(threshold=0.02))
    assert summary["switch"] == traced(written, expected).summary()["switch"]
    by_teacher = [mark for completion in written for mark in completion.from_teacher]
    assert summary["teacher_share"] == sum(by_teacher) / len(by_teacher)
    assert summary["counts"]["generated_tokens"] == len(by_teacher)


def test_other_methods_leave_no_trace(recipe, tmp_path):
    run = train(recipe("gkd-rkl", "train.steps=1"), tmp_path / "run")
    summary = json.loads(run.summary.read_text())
    assert "switch" not in summary
    assert "teacher_share" not in summary
