"""The progress of a planned run, read from its folder, and an estimate of the time left. Imports no torch."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from distilsql.distill.exposure import ExposureOptions
from distilsql.errors import DistilSQLError
from distilsql.experiments.plan import Judgement, PlannedRun
from distilsql.files import last_whole, lines_of
from distilsql.metrics.rouge import RougeScores
from distilsql.runs.folder import RunFolder, file_name
from distilsql.runs.recipe import Recipe, load_recipe
from distilsql.runs.records import Score

# The folder name of a suite of our own, and so the end of the names of scores on it.
SUITE = "ts"


class State(Enum):
    DONE = "done"
    MEASURED = "measured"  # all that is asked of it is there but its weights
    ANSWERED = (
        "answered"  # its weights are gone; what is left to measure is measured on the answers that are kept
    )
    TRAINED = "trained"
    PART_DONE = "part done"
    MISSING = "missing"
    OTHER = "another recipe"


NOTHING_TO_TRAIN = frozenset({State.DONE, State.MEASURED, State.ANSWERED, State.TRAINED})


@dataclass(frozen=True)
class Standing:
    """`steps_done` of `steps` (None where unknown), and `judged` of the measurements `wanted`.

    `seconds_left` estimates the rest of the training alone, by what it was taken from (`basis`); None where nothing
    like it has run.
    """

    state: State
    steps_done: int
    steps: int | None
    judged: int
    wanted: int
    seconds_left: float | None
    basis: str = ""


def standings(runs: Mapping[str, PlannedRun]) -> dict[str, Standing]:
    """The progress of every run. Training rates are taken from the run itself, else from one of the same method."""
    rates = {name: rate for name, run in runs.items() if (rate := _rate(run.folder)) is not None}
    lengths = {name: steps for name, run in runs.items() if (steps := _steps(run)) is not None}
    states = states_of(runs)
    return {name: _standing(run, states[name], runs, rates, lengths) for name, run in runs.items()}


def _standing(
    run: PlannedRun,
    state: State,
    runs: Mapping[str, PlannedRun],
    rates: Mapping[str, float],
    lengths: Mapping[str, int],
) -> Standing:
    judged = sum(is_judged(run.folder, judgement) for judgement in run.judged_on)
    steps = lengths.get(run.name)
    done = steps or 0 if state in NOTHING_TO_TRAIN else _checkpoint_step(run.folder)
    left: float | None = 0.0
    basis = ""
    if state not in NOTHING_TO_TRAIN:
        source = next(_alike(run, runs, rates), None)
        steps = steps or next((lengths[name] for name in _names_alike(run, runs) if name in lengths), None)
        left = (steps - done) * rates[source] if source and steps else None
        basis = source or ""
    return Standing(state, done, steps, judged, len(run.judged_on), left, basis)


def states_of(runs: Mapping[str, PlannedRun]) -> dict[str, State]:
    """The state of every run of a plan, where each comes after those it needs. A run without weights that another one
    still has to load is part done: it has to be trained again."""
    found: dict[str, State] = {}
    needed: set[str] = set()
    for name, run in reversed(list(runs.items())):
        state = state_of(run)
        if state in (State.MEASURED, State.ANSWERED) and name in needed:
            state = State.PART_DONE
        if state not in (State.DONE, State.MEASURED, State.ANSWERED):
            needed.update(run.needs)
        found[name] = state
    return {name: found[name] for name in runs}


def state_of(run: PlannedRun) -> State:
    """Raises nothing: a folder that cannot be read as this run holds something else."""
    folder = run.folder
    if not folder.recipe.exists():
        return State.OTHER if folder.others() or folder.path.is_file() else State.MISSING
    if not is_same_recipe(run):
        return State.OTHER
    if not folder.summary.exists():
        return State.PART_DONE
    left = [judgement for judgement in run.judged_on if not is_judged(folder, judgement)]
    if folder.model.exists():
        return State.TRAINED if left else State.DONE
    if not left:
        return State.MEASURED
    return State.ANSWERED if all(_is_answered(folder, judgement) for judgement in left) else State.PART_DONE


def is_same_recipe(run: PlannedRun) -> bool:
    """Whether the folder holds this run. The folder of all runs may have moved: of a path into it, only the run's
    name counts."""
    try:
        return say_the_same(load_recipe(run.folder.recipe), run.recipe)
    except DistilSQLError:
        return False


def say_the_same(one: Recipe, other: Recipe) -> bool:
    """Whether recipes differ in nothing but where the folder of all runs lies and in what one leaves to be settled."""
    return _comparable(one.settled_as(other)) == _comparable(other.settled_as(one))


def _comparable(recipe: Recipe) -> dict[str, Any]:
    values = recipe.model_dump()
    for section in (values["student"], values["teacher"] or {}):
        path = Path(section.get("path", ""))
        if path.name == "model":
            section["path"] = path.parent.name
    return values


def scores_path(run: RunFolder, judgement: Judgement) -> Path:
    """Where the accuracy of `judgement` is kept."""
    suite = f"-{SUITE}" if judgement.suite else ""
    return run.scores(file_name(judgement.benchmark) + suite, judgement.temperature)


def predictions_paths(run: RunFolder, judgement: Judgement) -> dict[int, Path]:
    """Where the answers are kept, by the seed they are sampled with (0 where they are greedy)."""
    return {
        seed: run.predictions(judgement.benchmark, judgement.temperature, seed)
        for seed in judgement.sample_seeds
    }


def is_judged(run: RunFolder, judgement: Judgement) -> bool:
    """Whether a measurement is there (on how many questions accuracy is, is looked at when the benchmark is loaded).
    Answers have to be there, too, as long as there is a model to answer again."""
    if judgement.exposure_limit is not None:
        return read_exposure(run, judgement) is not None
    answers = predictions_paths(run, judgement).values() if run.model.exists() else ()
    return all(path.exists() for path in (scores_path(run, judgement), *answers))


def _is_answered(run: RunFolder, judgement: Judgement) -> bool:
    """Whether a measurement needs no model, since its answers are there, or scores of them are, which hold them."""
    if judgement.exposure_limit is not None:
        return False
    is_predicted = all(path.exists() for path in predictions_paths(run, judgement).values())
    return is_predicted or bool(kept_queries(run, judgement))


def kept_queries(run: RunFolder, judgement: Judgement) -> dict[str, str]:
    """The queries that the EX scores of the same questions hold, by example; none where there are no such scores."""
    if not judgement.suite:
        return {}
    scores = _json(scores_path(run, replace(judgement, suite=False))) or {"verdicts": []}
    return {one["example_id"]: one["predicted_sql"] for one in scores["verdicts"]}


def read_exposure(run: RunFolder, judgement: Judgement) -> dict[str, Any] | None:
    """exposure.json, if it is what `judgement` asks for: of its benchmark and its number of questions, with the usual
    options, and with the run's own teacher. None where there is none, or another one."""
    values = _json(run.exposure) or {}
    found = [values.get(key) for key in ("benchmark", "prompts", "options", "teacher")]
    asked = [judgement.benchmark, judgement.exposure_limit, asdict(ExposureOptions()), None]
    return values if found == asked else None


def read_score(run: RunFolder, judgement: Judgement, *, length: str = "") -> Score | None:
    """The accuracy that was measured, on instructions of one `length` if that is given; None where there is none."""
    values = _json(scores_path(run, judgement))
    if values is None or not length:
        return None if values is None else Score.model_validate(values)
    rouge = _rouge(run, judgement).of_length(length)
    if rouge is None:
        return None
    judged = {"accuracy": rouge.rouge_l, "interval": rouge.interval, "total": len(rouge.instructions)}
    judged["right"] = {one.example_id: one.mean for one in rouge.instructions}
    return Score.model_validate(values).model_copy(update=judged)


def read_correctness(run: RunFolder, judgement: Judgement, *, length: str = "") -> dict[str, float] | None:
    """How right each example was, 0 to 1: its verdict, or its ROUGE-L over samples (of one `length` if that is given).
    None where it was not judged."""
    score = read_score(run, judgement, length=length)
    return None if score is None else score.right


def _rouge(run: RunFolder, judgement: Judgement) -> RougeScores:
    return RougeScores.from_json(scores_path(run, judgement).read_text(encoding="utf-8"))


def suite_folder(runs: Path, benchmark: str) -> Path:
    return runs / "suites" / file_name(benchmark) / SUITE


def summary_of(run: RunFolder) -> dict[str, Any]:
    """The run's summary; empty until it is finished."""
    return _json(run.summary) or {}


# ---- estimates -----------------------------------------------------------------------------------------------


def _alike(run: PlannedRun, runs: Mapping[str, PlannedRun], rates: Mapping[str, float]) -> Iterator[str]:
    return (name for name in _names_alike(run, runs) if name in rates)


def _names_alike(run: PlannedRun, runs: Mapping[str, PlannedRun]) -> Iterable[str]:
    """The run itself, then those that train the same model from the same data by the same method."""
    return [run.name] + [name for name, other in runs.items() if _kind(other) == _kind(run)]


def _kind(run: PlannedRun) -> tuple[Any, ...]:
    recipe = run.recipe
    teacher = recipe.teacher.path if recipe.teacher else None
    return (recipe.method, recipe.student.path, teacher, recipe.data.train)


def _rate(run: RunFolder) -> float | None:
    """Training seconds per step, from the summary or the last line of the log."""
    values = summary_of(run) or _last_line(run.log)
    steps = values.get("steps") or values.get("step")
    return values["train_seconds"] / steps if steps and values.get("train_seconds") else None


def _steps(run: PlannedRun) -> int | None:
    """Optimizer steps of the whole run; those of epochs are known once a run has finished."""
    return run.recipe.train.steps or summary_of(run.folder).get("steps")


def _checkpoint_step(run: RunFolder) -> int:
    whole = last_whole(run.checkpoint)
    return int((_json(whole / "state.json") or {}).get("step", 0)) if whole else 0


def _last_line(log: Path) -> dict[str, Any]:
    """The last line of a log that says how long training took; a line that a kill cut off is skipped."""
    if not log.exists():
        return {}
    for line in reversed(lines_of(log)):
        try:
            values: dict[str, Any] = json.loads(line)
        except json.JSONDecodeError:
            continue
        if "train_seconds" in values:
            return values
    return {}


def _json(path: Path) -> dict[str, Any] | None:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None
    return values
