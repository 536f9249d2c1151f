"""Every distillation method as one row: which divergence, on which completions, with how much gold likelihood.

This table is what the command line, the method reference, the comparison report and the parametrised tests
read. It imports nothing heavy, so that `distilsql methods` starts at once. Adding a method is adding a row
and, where they are new, one function in `divergences.py` or one file in `training/sources`.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class SourceSpec:
    """Where the completions that are trained on come from, as far as a row of the table says it.

    `implementation` names the class that writes them, `module:Class`, a `training.sources.source.CompletionSource`;
    it is imported when a training needs it. `is_on_policy`: the student generates token by token during training.
    `teacher_beams`: the beams with which the teacher writes beforehand as published, 1 where it samples, 0 where it
    writes nothing. `reads_both_models`: at every token, so that an engine of one model alone cannot write for it.
    `sides`: whether a question has one completion of always the same kind, either the student's or another, or both.
    """

    name: str
    description: str
    implementation: str
    is_on_policy: bool = False
    teacher_beams: int = 0
    reads_both_models: bool = False
    sides: Literal["one", "either", "both"] = "one"


_ROOM = "distilsql.training.sources"
GOLD = SourceSpec("gold", "gold", f"{_ROOM}.gold:Gold")
IMPERFECT = SourceSpec("imperfect", "imperfect gold: mask, predict, rewrite", f"{_ROOM}.imperfect:Imperfect")
MASKED = SourceSpec("masked", "gold with the mask tokens left in", f"{_ROOM}.imperfect:Masked")
STUDENT = SourceSpec("student", "student-generated, online", f"{_ROOM}.student:Student", is_on_policy=True)
TEACHER = SourceSpec(
    "teacher",
    "teacher-generated (fixed beforehand)",
    f"{_ROOM}.teacher:Teacher",
    teacher_beams=5,
)
TEACHER_AND_STUDENT = SourceSpec(
    "teacher-and-student",
    "teacher-generated (fixed beforehand) or student-generated (online)",
    f"{_ROOM}.teacher:TeacherAndStudent",
    is_on_policy=True,
    teacher_beams=1,
    sides="either",
)
TEACHER_BESIDE_STUDENT = SourceSpec(
    "teacher-beside-student",
    "both teacher-generated (fixed beforehand) and student-generated (online)",
    f"{_ROOM}.teacher:TeacherBesideStudent",
    is_on_policy=True,
    teacher_beams=1,
    sides="both",
)
GOLD_AND_STUDENT = SourceSpec(
    "gold-and-student",
    "gold or student-generated (online)",
    f"{_ROOM}.student:GoldAndStudent",
    is_on_policy=True,
    sides="either",
)
SWITCH = SourceSpec(
    "switch",
    "student-generated, the teacher taking over where they diverge",
    f"{_ROOM}.switch:Switch",
    is_on_policy=True,
    reads_both_models=True,
)
TEACHER_MIXED = SourceSpec(
    "teacher-mixed",
    "drawn from a mixture of teacher and student, token by token",
    f"{_ROOM}.minillm:TeacherMixed",
    is_on_policy=True,
    reads_both_models=True,
)
REPLAY = SourceSpec(
    "replay",
    "gold, student-generated (online), or a replay of that, moving away from gold as it stops helping",
    f"{_ROOM}.replay:Replay",
    is_on_policy=True,
)


@dataclass(frozen=True)
class Method:
    """One row of the KID paper's Table 1, SWITCH, or another baseline of this line of work.

    `divergence` names an entry of `divergences.DIVERGENCES`, or is None where only likelihood is trained.
    `gold_weight` multiplies the likelihood of the gold completion, `completion_weight` that of the completion that is
    trained on.
    """

    name: str
    divergence: str | None
    source: SourceSpec
    gold_weight: float
    paper: str
    summary: str
    completion_weight: float = 0.0

    @property
    def needs_teacher(self) -> bool:
        return self.divergence is not None or self.source.teacher_beams > 0


_ROWS = (
    Method("sft", None, GOLD, 1.0, "the baseline of KID §4", "Likelihood of the gold completion."),
    Method("fkd", "forward-kl", GOLD, 1.0, "Hinton et al. 2015", "Match the teacher's whole distribution."),
    Method(
        "rkd",
        "reverse-kl",
        GOLD,
        1.0,
        "Gu et al. 2023",
        "Match the teacher's modes. “Vanilla KID” in the paper's Table 5.",
    ),
    Method(
        "f-distill",
        "total-variation",
        TEACHER_AND_STUDENT,
        0.0,
        "Wen et al. 2023",
        "Total variation on the teacher's and the student's own completions.",
    ),
    Method(
        "imitkd",
        "forward-kl",
        GOLD_AND_STUDENT,
        0.0,
        "Lin et al. 2020",
        "Forward KL on a mixture of gold and student completions. Without gold likelihood (ASSUMED: KID adds it to "
        "baselines “that rely on the ground-truth data”, and its Table 1 has ImitKD rely on gold and student data).",
    ),
    Method("gkd-fkl", "forward-kl", STUDENT, 0.0, "Agarwal et al. 2024", "On-policy, forward KL."),
    Method("gkd-rkl", "reverse-kl", STUDENT, 0.0, "Agarwal et al. 2024", "On-policy, reverse KL."),
    Method("gkd-jsd", "jensen-shannon", STUDENT, 0.0, "Agarwal et al. 2024", "On-policy, JSD."),
    Method(
        "kid",
        "reverse-kl",
        IMPERFECT,
        1.0,
        "Zhong et al. 2024 (KID)",
        "Reverse KL on gold rewritten by the student in one forward pass, plus gold likelihood.",
    ),
    Method(
        "kid-mask-only",
        "reverse-kl",
        MASKED,
        1.0,
        "Zhong et al. 2024 (KID), Table 5",
        "KID's ablation: the mask tokens stay in place of the student's predictions.",
    ),
    Method(
        "switch",
        "reverse-kl",
        SWITCH,
        0.0,
        "Koo et al. 2025 (SWITCH)",
        "On-policy, with the teacher supplying the token where JSD exceeds a decaying threshold. Reverse KL without "
        "gold likelihood (ASSUMED: as in GKD, so that the two differ only in who writes).",
    ),
    Method(
        "seqkd",
        None,
        TEACHER,
        0.0,
        "Kim and Rush 2016",
        "Likelihood of what the teacher writes, by beam search as published or sampled (`generation.teacher_beams`).",
        completion_weight=1.0,
    ),
    Method(
        "akl",
        "adaptive-kl",
        GOLD,
        1.0,
        "Wu et al. 2024 (AKL)",
        "Forward and reverse KL, weighted by how far apart student and teacher are in the teacher's head and in its "
        "tail. Gold likelihood is KID's addition to baselines on gold (ASSUMED: the paper trains AKL alone).",
    ),
    Method(
        "atkd",
        "adaptive-teaching",
        GOLD,
        1.0,
        "Zhong et al. 2024 (ATKD)",
        "Matches the teacher's other tokens everywhere, and its target token only where it is unsure. With gold "
        "likelihood, which KID adds to baselines on gold (ASSUMED).",
    ),
    Method(
        "minillm",
        "reverse-kl",
        TEACHER_MIXED,
        0.0,
        "Gu et al. 2024 (MiniLLM)",
        "Policy gradient of the sequences' reverse KL: exact for the next token, by mean reward for the future. "
        "Without the language-modelling loss on a pre-training corpus (ASSUMED: a recipe has none; "
        "`distill.gold_weight` adds gold likelihood).",
    ),
    Method(
        "distillm",
        "skewed-reverse-kl",
        REPLAY,
        0.0,
        "Ko et al. 2024 (DistiLLM)",
        "Skewed reverse KL (or forward: `distill.divergence`) on gold, and increasingly on what the student writes or "
        "wrote earlier, driven by the validation loss. Without its loss on a pre-training corpus (ASSUMED, as for "
        "minillm).",
    ),
    Method(
        "distillm-2",
        "contrastive-skewed-kl",
        TEACHER_BESIDE_STUDENT,
        0.0,
        "Ko et al. 2025 (DistiLLM-2)",
        "Skewed forward KL on the teacher's completion and skewed reverse KL on the student's, for every question. "
        "Skew and weights stay constant, as in the authors' released settings (ASSUMED); the paper adapts both: "
        "`distill.skew_schedule`, `distill.side_weights`.",
    ),
)

METHODS: dict[str, Method] = {method.name: method for method in _ROWS}
