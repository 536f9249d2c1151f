"""Every distillation method as one row: which divergence, on which completions, with how much gold likelihood.

This table is what the command line, the method reference, the comparison report and the parametrised tests
read. It imports nothing heavy, so that `distilsql methods` starts at once. Adding a method is adding a row
and, where its divergence is new, one function in `divergences.py`.
"""

from dataclasses import dataclass
from enum import StrEnum


class Source(StrEnum):
    """Where the completions that are trained on come from."""

    GOLD = "gold"
    IMPERFECT = "imperfect gold: mask, predict, rewrite"
    MASKED = "gold with the mask tokens left in"
    STUDENT = "student-generated, online"
    TEACHER_AND_STUDENT = "teacher-generated (fixed beforehand) or student-generated (online)"
    GOLD_AND_STUDENT = "gold or student-generated (online)"
    SWITCH = "student-generated, the teacher taking over where they diverge"

    @property
    def is_on_policy(self) -> bool:
        """Whether the student generates token by token during training."""
        return self in (Source.STUDENT, Source.TEACHER_AND_STUDENT, Source.GOLD_AND_STUDENT, Source.SWITCH)

    @property
    def is_rewritten(self) -> bool:
        """Whether completions are gold ones with some tokens masked, so that every gold target lines up."""
        return self in (Source.IMPERFECT, Source.MASKED)


@dataclass(frozen=True)
class Method:
    """One row of the KID paper's Table 1 (and SWITCH).

    `divergence` names an entry of `divergences.DIVERGENCES`, or is None for plain fine-tuning. `gold_weight`
    multiplies the likelihood term of the gold completion.
    """

    name: str
    divergence: str | None
    source: Source
    gold_weight: float
    paper: str
    summary: str

    @property
    def needs_teacher(self) -> bool:
        return self.divergence is not None


_ROWS = (
    Method("sft", None, Source.GOLD, 1.0, "the baseline of KID §4", "Likelihood of the gold completion."),
    Method(
        "fkd", "forward-kl", Source.GOLD, 1.0, "Hinton et al. 2015", "Match the teacher's whole distribution."
    ),
    Method(
        "rkd",
        "reverse-kl",
        Source.GOLD,
        1.0,
        "Gu et al. 2023",
        "Match the teacher's modes. “Vanilla KID” in the paper's Table 5.",
    ),
    Method(
        "f-distill",
        "total-variation",
        Source.TEACHER_AND_STUDENT,
        0.0,
        "Wen et al. 2023",
        "Total variation on the teacher's and the student's own completions.",
    ),
    Method(
        "imitkd",
        "forward-kl",
        Source.GOLD_AND_STUDENT,
        0.0,
        "Lin et al. 2020",
        "Forward KL on a mixture of gold and student completions. Without gold likelihood (ASSUMED: KID adds it to "
        "baselines “that rely on the ground-truth data”, and its Table 1 has ImitKD rely on gold and student data).",
    ),
    Method("gkd-fkl", "forward-kl", Source.STUDENT, 0.0, "Agarwal et al. 2024", "On-policy, forward KL."),
    Method("gkd-rkl", "reverse-kl", Source.STUDENT, 0.0, "Agarwal et al. 2024", "On-policy, reverse KL."),
    Method("gkd-jsd", "jensen-shannon", Source.STUDENT, 0.0, "Agarwal et al. 2024", "On-policy, JSD."),
    Method(
        "kid",
        "reverse-kl",
        Source.IMPERFECT,
        1.0,
        "Zhong et al. 2024 (KID)",
        "Reverse KL on gold rewritten by the student in one forward pass, plus gold likelihood.",
    ),
    Method(
        "kid-mask-only",
        "reverse-kl",
        Source.MASKED,
        1.0,
        "Zhong et al. 2024 (KID), Table 5",
        "KID's ablation: the mask tokens stay in place of the student's predictions.",
    ),
    Method(
        "switch",
        "reverse-kl",
        Source.SWITCH,
        0.0,
        "Koo et al. 2025 (SWITCH)",
        "On-policy, the teacher supplying the token where JSD exceeds a decaying threshold. Reverse KL without gold "
        "likelihood (ASSUMED: GKD's, so that the two differ in who writes).",
    ),
)

METHODS: dict[str, Method] = {method.name: method for method in _ROWS}
