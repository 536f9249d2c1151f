"""Coordination between the processes of a training: sums, and which process reports. With one, sums do nothing."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from distilsql.progress import reporting_to
from distilsql.training.reading import Survey
from distilsql.training.sources.source import Trained
from distilsql.training.window import Denominators, WindowLoss, WindowTrainer
from distilsql.training.window_tree import WindowTree


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
        culprits=loss.culprits,
    )


def survey_together(
    trainer: WindowTrainer, items: Sequence[WindowTree], trained: Sequence[Trained]
) -> Survey | None:
    """This process's readings of its trees, judged by those of the whole window, for a divergence that asks for it."""
    survey = trainer.survey(items, trained)
    if survey is not None:
        trainer.judge(survey, gather_object(survey.logps))  # type: ignore[arg-type]
    return survey


def sum_gradients(accelerator: Accelerator, gradients: Sequence[Tensor]) -> None:
    """Sum gradients in place: each process holds its share of one loss that is already normalised."""
    if accelerator.num_processes == 1:
        return
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    reduced: Any = accelerator.reduce(flat, reduction="sum")
    offset = 0
    for gradient in gradients:
        gradient.copy_(reduced[offset : offset + gradient.numel()].view_as(gradient))
        offset += gradient.numel()


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
