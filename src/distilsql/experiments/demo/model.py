"""One model of the demo, in its own process: train it (if a student), let it answer the test, judge it.

python -m distilsql.experiments.demo.model FOLDER TASK: the TASK is a DemoTask as JSON. Standard output takes events for
`side_by_side`.
"""

import json
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from distilsql.allocator import keep_freed_memory
from distilsql.data.benchmark import SqlBenchmark
from distilsql.errors import DistilSQLError
from distilsql.experiments.demo.task import TEST, DemoTask
from distilsql.experiments.demo.teacher import PROMPT
from distilsql.inference.model import Model
from distilsql.inference.predict import load_any, load_student, predict
from distilsql.progress import Work, reporting_to
from distilsql.runs.evaluate import evaluate_run
from distilsql.runs.folder import RunFolder
from distilsql.runs.recipe import Recipe, make_recipe
from distilsql.runs.sections import PromptSettings
from distilsql.training.train import train

# Many passes over few examples: where fine-tuning begins to learn its examples by heart, a teacher has more to say.
TRAINING_EXAMPLES = 600
KEPT_LAYERS = 4
_SECONDS_BETWEEN_EVENTS = 0.5


def student_recipe(method: str, teacher: str, steps: int) -> Recipe:
    return make_recipe(
        {
            "method": method,
            "name": method,
            "student": {"path": teacher, "keep_layers": KEPT_LAYERS, "tuning": "full"},
            "teacher": {"path": teacher},
            "data": {"train": "demo:noisy", "train_limit": TRAINING_EXAMPLES},
            "prompt": PROMPT,
            "train": {
                "steps": steps,
                "learning_rate": 2e-3,
                "warmup_share": 0.1,
                "questions_per_tree": 16,
                "trees_per_step": 1,
                "precision": "float32",
                "save_every_steps": 100,
                "calibration_windows": 5,
            },
        }
    )


def make_student(folder: Path, recipe: Recipe, test: SqlBenchmark) -> None:
    run = train(recipe, folder)
    judge(run, lambda: load_student(run), test)


def judge(run: RunFolder, load: Callable[[], Model], test: SqlBenchmark) -> None:
    """Answers to the test and their verdicts; what an earlier start has written is kept."""
    if not run.predictions(TEST).exists():
        predict(load(), test, run.predictions(TEST))
    if not run.scores(TEST).exists():
        evaluate_run(run, test)


class Teller(logging.Handler):
    """Writes messages and progress as events; progress only as often as people can read it."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__()
        self._stream = stream
        self._last = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        self._write({"said": self.format(record)})

    def error(self, sentence: str) -> None:
        self._write({"error": sentence})

    def began(self, work: Work) -> None:
        self.advanced(work)

    def advanced(self, work: Work) -> None:
        now = time.monotonic()
        if work.total is not None and (
            work.done == work.total or now - self._last >= _SECONDS_BETWEEN_EVENTS
        ):
            self._last = now
            self._write({"doing": work.what, "done": work.done, "total": work.total, "detail": work.detail})

    def ended(self, work: Work) -> None:
        """What comes next is an event of its own."""

    def _write(self, event: dict[str, Any]) -> None:
        print(json.dumps(event), file=self._stream, flush=True)


def make(folder: Path, task: DemoTask) -> None:
    """The task's model in its run folder: trained if it is a student, asked, judged."""
    test = task.test()
    if task.method is not None:
        make_student(folder, student_recipe(task.method, task.teacher, task.steps), test)
    else:
        prompt = PromptSettings.model_validate(PROMPT)
        judge(RunFolder(folder), lambda: load_any(task.teacher, prompt, precision="float32"), test)


def main() -> None:
    keep_freed_memory()
    tell, sys.stdout = Teller(sys.stdout), sys.stderr  # nothing else may come between the events
    folder, task = Path(sys.argv[1]), DemoTask.from_json(sys.argv[2])
    logger = logging.getLogger("distilsql")
    logger.setLevel(logging.INFO)
    logger.addHandler(tell)
    try:
        with reporting_to(tell):
            make(folder, task)
    except DistilSQLError as error:
        tell.error(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
