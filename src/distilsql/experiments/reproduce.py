"""Reproduce tables and figures: make the runs that are missing, judge them, and render what is there.

Everything is kept in run folders, so the same command resumes after any interruption: a finished run is not trained
again, a partial one continues from its checkpoint, answered questions are not asked again. A run whose weights were
deleted is made again only if another run has to load them, or if a missing measurement needs its model. Several
processes may work on the same plan at once, for example one per GPU: each takes runs that no other is working on.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from distilsql.data.benchmark import Benchmark, SqlBenchmark
from distilsql.data.load import load_benchmark
from distilsql.errors import DataError, DistilSQLError, RunError
from distilsql.experiments.experiment import Scale
from distilsql.experiments.plan import Judgement, Plan, PlannedRun
from distilsql.experiments.render import render
from distilsql.experiments.state import (
    State,
    is_judged,
    kept_queries,
    predictions_paths,
    read_score,
    say_the_same,
    scores_path,
    state_of,
    states_of,
    suite_folder,
)
from distilsql.files import lines_of, set_aside
from distilsql.inference.exposure import ExposureOptions, expose_run
from distilsql.inference.model import Model
from distilsql.inference.predict import load_student, predict, write_predictions
from distilsql.lock import RunInUse, hold
from distilsql.metrics.suites.build import build_suite
from distilsql.progress import progress, titled
from distilsql.runs.evaluate import Rules, evaluate_run
from distilsql.runs.folder import RunFolder, file_name
from distilsql.training.train import train

log = logging.getLogger(__name__)

# Between two looks at the runs that other processes are at work on.
_ASK_AGAIN_S = 10.0


def reproduce(plan: Plan, out: Path) -> list[Path]:
    """Train and judge what is missing, run by run, and render every table and figure into `out`.

    Tables are written as their runs are finished, so that an interrupted reproduction leaves what it has. A run that
    cannot be made, and those that need it, are left out and the others made. Returns the written Markdown files.

    Raises:
        RunError: at the end, if some runs could not be made; at once, in one of several processes that are to
            train together.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RunError(
            "reproduce does not train one run in several processes (WORLD_SIZE is set, as by `accelerate launch`). "
            "Start `distilsql reproduce` once for each GPU: each process takes runs that no other is working on."
        )
    maker = _Maker(plan, out)
    waiting = [run for name, run in plan.runs.items() if maker.states[name] is not State.MEASURED]
    told = ""
    while waiting:
        postponed = maker.make_all(waiting)
        if len(postponed) == len(waiting):
            names = ", ".join(run.name for run in postponed)
            if names != told:
                told = names
                log.info(
                    f"Waiting for other processes that are working on these runs, or on runs they need: {names}"
                )
            with progress(f"waiting for {len(postponed)} runs of other processes"):
                time.sleep(_ASK_AGAIN_S)
        waiting = postponed
    written = render(plan, out)
    if maker.failed:
        first, reason = next(iter(maker.failed.items()))
        raise RunError(
            f"{len(maker.failed)} of {len(plan.runs)} runs could not be made; the tables in {out} show the others. "
            f"The first is {first}: {reason}"
        )
    return written


class _Maker:
    """Trains and judges runs, and renders what each of them changes. `failed`: the runs left out, and why; `states`:
    those at the start."""

    def __init__(self, plan: Plan, out: Path) -> None:
        self.plan, self.out = plan, out
        self.judge = Judge(plan)
        self.states = states_of(plan.runs)
        self.failed: dict[str, str] = {}
        self._places = {name: place for place, name in enumerate(plan.runs, start=1)}

    def make_all(self, runs: Sequence[PlannedRun]) -> list[PlannedRun]:
        """Make `runs` in order; returns those that another process is working on, and those that depend on them."""
        postponed: list[PlannedRun] = []
        for run in runs:
            needs = () if self._needs_no_model(run) else run.needs
            missing = [name for name in needs if name in self.failed]
            if missing:
                self.failed[run.name] = f"it needs {missing[0]}"
            elif not all(_has_weights(self.plan.runs[name]) for name in needs):
                postponed.append(run)
            else:
                try:
                    self._make(run)
                except RunInUse:
                    postponed.append(run)
                except (DistilSQLError, torch.OutOfMemoryError) as error:
                    self.failed[run.name] = str(error)
                    log.warning(f"{run.name} is left out: {error}")
        return postponed

    def _make(self, run: PlannedRun) -> None:
        title = f"{self._places[run.name]}/{len(self._places)} {run.name}"
        if state_of(run) is State.OTHER:
            raise RunError(
                f"{run.folder.path} does not hold the run that its name stands for: its recipe differs, or "
                "it is not a run folder. The base recipe may have changed since: choose another --runs, or move the "
                "folder away to train it again."
            )
        with hold(run.folder.path), titled(title):
            changed = self._trained(run) | self.judge.judge(run)
        if changed:
            render(self.plan, self.out, touching=run.name)

    def _trained(self, run: PlannedRun) -> bool:
        """Train the run if its weights are needed and not there; returns whether anything was done."""
        if self._needs_no_model(run) or _has_weights(run):
            return False
        train(run.recipe, run.folder.path, same=say_the_same)
        return True

    def _needs_no_model(self, run: PlannedRun) -> bool:
        return self.states[run.name] is State.ANSWERED


def _has_weights(run: PlannedRun) -> bool:
    return state_of(run) in (State.DONE, State.TRAINED)


class Judge:
    """Measures finished runs. Benchmarks and suites are loaded once; an unavailable one is reported once."""

    def __init__(self, plan: Plan) -> None:
        self.scale: Scale = plan.scale
        self.folder = plan.folder
        self._benchmarks: dict[str, Benchmark | None] = {}
        self._whole: dict[str, Benchmark] = {}

    def judge(self, run: PlannedRun) -> bool:
        """Make every measurement of the run that is missing; returns whether anything was done."""
        loaded: list[Model] = []

        def model() -> Model:
            if not loaded:
                loaded.append(load_student(run.folder))
            return loaded[0]

        # Whether a judgement is up to date is told by answers, which a run without weights need not have kept.
        wanted = [
            judgement
            for judgement in run.judged_on
            if run.folder.model.exists() or not is_judged(run.folder, judgement)
        ]
        done = [self._measure(run, judgement, model) for judgement in wanted]
        return any(done)

    def _measure(self, run: PlannedRun, judgement: Judgement, model: Callable[[], Model]) -> bool:
        benchmark = self.benchmark(judgement.benchmark)
        if benchmark is None:
            return False
        if judgement.exposure_limit is not None:
            return self._expose(run, judgement, judgement.exposure_limit)
        answered = self._answer(run.folder, judgement, benchmark, model)
        if not answered and _is_scored(run.folder, judgement, benchmark):
            return False
        suite = self._suite(judgement.benchmark) if judgement.suite else None
        scores = evaluate_run(run.folder, benchmark, Rules(suite=suite), temperature=judgement.temperature)
        score = read_score(run.folder, judgement)
        if score is not None:
            low, high = score.interval or (score.accuracy, score.accuracy)
            log.info(
                f"{run.name}: {scores.metric} {score.accuracy:.1%} ({low:.1%} to {high:.1%}) on {benchmark.name}, "
                f"n = {score.total}"
            )
        return True

    def _answer(
        self,
        run: RunFolder,
        judgement: Judgement,
        benchmark: Benchmark,
        model: Callable[[], Model],
    ) -> bool:
        """Make sure that every question is answered; answers of an earlier, smaller draw are kept."""
        asked = {example.example_id for example in benchmark.examples}
        done = False
        for seed, path in predictions_paths(run, judgement).items():
            if path.exists():
                if _ids(path) == asked:
                    continue
                set_aside(path, ".unfinished")
            kept = kept_queries(run, judgement)
            if kept.keys() == asked and not run.model.exists():
                write_predictions(kept, benchmark, path)
                continue
            student = model()
            decoder = replace(student.decoder, temperature=judgement.temperature, seed=seed)
            predict(replace(student, decoder=decoder), benchmark, path)
            done = True
        return done

    def _expose(self, run: PlannedRun, judgement: Judgement, questions: int) -> bool:
        if is_judged(run.folder, judgement):
            return False
        asked = self._whole[judgement.benchmark].take(questions, 0)
        if len(asked.examples) < questions:
            there = f"{asked.name} has {len(asked.examples)} questions, not {questions}"
            log.warning(f"{run.name}: ExAccErr is left out: {there}")
            return False
        expose_run(run.folder, asked, ExposureOptions())
        return True

    def benchmark(self, name: str) -> Benchmark | None:
        """The questions of a benchmark at this scale; None, with a warning, if its data is not available."""
        if name not in self._benchmarks:
            self._benchmarks[name] = self._load(name)
        return self._benchmarks[name]

    def _load(self, name: str) -> Benchmark | None:
        options = self.scale.benchmarks[name]
        try:
            found = load_benchmark(name, missing_databases="skip")
        except DataError as error:
            log.warning(f"{name} is left out: {error}")
            return None
        if found.skipped:
            count = f"{len(found.skipped)} of {len(found.skipped) + len(found.examples)}"
            log.warning(f"{name}: {count} questions lack their database")
        self._whole[name] = found = found.without(options.leave_out)
        return found if options.limit is None else found.take(options.limit, 0)

    def _suite(self, name: str) -> Path:
        """The suite of the whole benchmark, built if it is not there yet. Raises RunInUse while another process builds
        it: the run is then judged later."""
        folder, benchmark = suite_folder(self.folder, name), self._whole[name]
        assert isinstance(benchmark, SqlBenchmark)
        with hold(folder):
            build_suite(benchmark, folder, name=file_name(name))
        return folder


def _is_scored(run: RunFolder, judgement: Judgement, benchmark: Benchmark) -> bool:
    """Whether there is a score on these questions that is not older than the answers."""
    score = read_score(run, judgement)
    if score is None or score.total != len(benchmark.examples):
        return False
    written = scores_path(run, judgement).stat().st_mtime
    return all(written >= path.stat().st_mtime for path in predictions_paths(run, judgement).values())


def _ids(predictions: Path) -> set[str]:
    return {json.loads(line)["example_id"] for line in lines_of(predictions)}
