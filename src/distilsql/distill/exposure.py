"""Excess accumulated error: how much worse a student is along its own samples (Arora et al. 2022).

R(l) = Σ_{t≤l} E_{y~q} KL(p_t‖q_t) is the error along the student's samples, ε(l) the same along the
teacher's; ExAccErr(l) = (R(l) − ε(l)) / ε(l) · 100 %. KL is the forward KL in nats.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ExposureOptions:
    """`length` is l of the definition; one sample per prompt and model, at temperature 1 (as public code reports)."""

    length: int = 15
    samples_per_prompt: int = 1
    temperature: float = 1.0
    seed: int = 0
    questions_per_batch: int = 16


def accumulated_error(kl_by_sample: Sequence[Sequence[float]], length: int) -> np.ndarray:
    """Σ_{t≤l} KL for each sample: shape (samples,). A sample that ended before l contributes what it has."""
    return np.array([float(np.sum(list(kl)[:length])) for kl in kl_by_sample])


def excess_accumulated_error(
    student_kl: Sequence[Sequence[float]], teacher_kl: Sequence[Sequence[float]], length: int
) -> float:
    """ExAccErr(length) in percent.

    Raises:
        ValueError: the error along the teacher's own samples is zero, so that the ratio is undefined.
    """
    along_student = accumulated_error(student_kl, length).mean()
    along_teacher = accumulated_error(teacher_kl, length).mean()
    if along_teacher <= 0:
        raise ValueError(
            "ExAccErr is undefined: student and teacher agree everywhere on the teacher's samples. Are they two models?"
        )
    return float((along_student - along_teacher) / along_teacher * 100)


def bootstrap_interval(
    student_kl: Sequence[Sequence[float]],
    teacher_kl: Sequence[Sequence[float]],
    length: int,
    *,
    samples_per_prompt: int = 1,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """A percentile bootstrap interval of ExAccErr(length): prompts are resampled, each with all its samples.

    The samples of a prompt follow one another. Raises ValueError where student and teacher have other numbers of them.
    """
    if len(student_kl) != len(teacher_kl):
        raise ValueError(
            f"{len(student_kl)} student samples but {len(teacher_kl)} teacher samples: pair them"
        )
    along_student, along_teacher = (
        accumulated_error(kl, length).reshape(-1, samples_per_prompt).mean(1)
        for kl in (student_kl, teacher_kl)
    )
    rows = np.random.default_rng(seed).integers(len(along_student), size=(resamples, len(along_student)))
    teacher_means = along_teacher[rows].mean(1)
    ratios = (along_student[rows].mean(1) - teacher_means) / teacher_means * 100
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
