"""The method table says what the papers' tables say."""

import re
from pathlib import Path

from distilsql.distill.divergences import DIVERGENCES
from distilsql.distill.methods import (
    GOLD,
    GOLD_AND_STUDENT,
    IMPERFECT,
    MASKED,
    METHODS,
    REPLAY,
    STUDENT,
    SWITCH,
    TEACHER,
    TEACHER_AND_STUDENT,
    TEACHER_BESIDE_STUDENT,
    TEACHER_MIXED,
)


def test_the_table_is_the_papers_table_1_switch_and_other_baselines():
    rows = {name: (row.divergence, row.source, row.gold_weight) for name, row in METHODS.items()}
    assert rows == {
        "sft": (None, GOLD, 1),
        "fkd": ("forward-kl", GOLD, 1),
        "rkd": ("reverse-kl", GOLD, 1),
        "f-distill": ("total-variation", TEACHER_AND_STUDENT, 0),
        "imitkd": ("forward-kl", GOLD_AND_STUDENT, 0),
        "gkd-fkl": ("forward-kl", STUDENT, 0),
        "gkd-rkl": ("reverse-kl", STUDENT, 0),
        "gkd-jsd": ("jensen-shannon", STUDENT, 0),
        "kid": ("reverse-kl", IMPERFECT, 1),
        "kid-mask-only": ("reverse-kl", MASKED, 1),
        "switch": ("reverse-kl", SWITCH, 0),
        "seqkd": (None, TEACHER, 0),
        "akl": ("adaptive-kl", GOLD, 1),
        "atkd": ("adaptive-teaching", GOLD, 1),
        "minillm": ("reverse-kl", TEACHER_MIXED, 0),
        "distillm": ("skewed-reverse-kl", REPLAY, 0),
        "distillm-2": ("contrastive-skewed-kl", TEACHER_BESIDE_STUDENT, 0),
    }


def test_every_divergence_of_the_table_exists():
    assert {row.divergence for row in METHODS.values() if row.divergence} <= set(DIVERGENCES)


def test_every_row_is_derived_on_a_page():
    """Under a heading with its name; gkd's three rows share one."""
    pages = (Path(__file__).parents[2] / "docs" / "methods").glob("*.md")
    headings = [
        line for page in pages for line in page.read_text(encoding="utf-8").splitlines() if "## " in line[:4]
    ]
    named = {name for line in headings for name in re.findall(r"[\w-]+", line.lstrip("# "))}
    assert {re.sub("^gkd-.*", "gkd", name) for name in METHODS} <= named
