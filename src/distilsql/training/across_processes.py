"""Coordination between the processes of a training: sums, which process reports, and that all end together. With one,
sums do nothing."""

import logging
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, gather_object

from distilsql.errors import TrainingError
from distilsql.interrupt import StopRequest
from distilsql.progress import reporting_to
from distilsql.training.curriculum import Sides
from distilsql.training.reading import Survey
from distilsql.training.rollout import ReadyWindow
from distilsql.training.window import Denominators, WindowLoss, WindowTrainer

# What the first process does by itself, such as an evaluation. The others notice at once where it ends instead.
LONGEST_WAIT = timedelta(hours=2)


def accelerator_of(trackers: Sequence[str], out: Path) -> Accelerator:
    """This process among those that a launcher has started, if one has."""
    return Accelerator(
        log_with=list(trackers) or None,
        project_dir=str(out),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=LONGEST_WAIT)],
    )


def sum_values(accelerator: Accelerator, values: Sequence[float]) -> list[float]:
    """The element-wise sum over all processes, in float64."""
    if accelerator.num_processes == 1:
        return list(values)
    tensor = torch.tensor(values, dtype=torch.float64, device=accelerator.device)
    reduced: Any = accelerator.reduce(tensor, reduction="sum")
    return list(reduced.tolist())


def sum_denominators(accelerator: Accelerator, own: Denominators) -> Denominators:
    """Those of the whole window, from each process's share."""
    trained, gold = sum_values(accelerator, [float(own.trained), float(own.gold)])
    return Denominators(int(trained), int(gold))


def sum_loss(accelerator: Accelerator, loss: WindowLoss) -> WindowLoss:
    """The loss of the whole window, finite if every process's part is. `culprits` are only this process's."""
    sums = sum_values(
        accelerator,
        [
            loss.total,
            loss.divergence,
            loss.negative_log_likelihood,
            float(loss.divergence_positions),
            float(loss.likelihood_positions),
            float(loss.examples),
            float(not loss.finite),
            float(loss.tokens_from_teacher),
            float(loss.tokens_written),
            *loss.sides.values(),
        ],
    )
    return WindowLoss(
        sums[0],
        sums[1],
        sums[2],
        int(sums[3]),
        int(sums[4]),
        int(sums[5]),
        finite=sums[6] == 0,
        tokens_from_teacher=int(sums[7]),
        tokens_written=int(sums[8]),
        sides=Sides.of(sums[9:]),
        culprits=loss.culprits,
    )


def survey_together(trainer: WindowTrainer, ready: ReadyWindow) -> Survey | None:
    """This process's readings of its trees, judged by those of the whole window, for a divergence that asks for it."""
    survey = trainer.survey(ready.items, ready.trained, ready.stand_in)
    if survey is not None:
        trainer.judge(survey, gather_object(survey.logps))  # type: ignore[arg-type]
    return survey


def is_stop_requested(accelerator: Accelerator, stop: StopRequest) -> bool:
    """Whether any process was asked to stop: they save together, so all of them stop after the same step."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    asked = sum_values(accelerator, [float(stop.number == number) for number in numbers])
    heard = [number for number, processes in zip(numbers, asked, strict=True) if processes]
    stop.number = stop.number or next(iter(heard), None)
    return bool(heard)


@contextmanager
def ending_with_the_others(accelerator: Accelerator, out: Path) -> Iterator[None]:
    """Raises TrainingError where another process is not there any more, which ends all of them."""
    try:
        yield
    except RuntimeError as error:
        if accelerator.num_processes == 1 or not _is_about_others(error):
            raise
        raise TrainingError(
            f"Another of the {accelerator.num_processes} processes has ended, and each holds a part of the weights, so "
            f"process {accelerator.process_index} stops, too. The other one's output says why. The last checkpoint in "
            f"{out} is kept: start the same command again to resume from it."
        ) from error


def _is_about_others(error: RuntimeError) -> bool:
    """gloo raises a plain RuntimeError, with the place in its source; what is said of a checkpoint quotes it."""
    return isinstance(error, torch.distributed.DistError) or "gloo/transport" in str(error)


@contextmanager
def speaking_for_all(is_speaking: bool) -> Iterator[None]:
    """Only one process of a training logs messages and reports progress; in the others this silences them."""
    logger = logging.getLogger("distilsql")
    level = logger.level
    with ExitStack() as silent:
        if not is_speaking:
            logger.setLevel(logging.CRITICAL + 1)
            silent.callback(logger.setLevel, level)
            silent.enter_context(reporting_to(None))
        yield
