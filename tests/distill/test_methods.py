"""The method table says what the papers' tables say."""

from distilsql.distill.divergences import DIVERGENCES
from distilsql.distill.methods import METHODS, Source


def test_the_table_is_the_papers_table_1_and_switch():
    rows = {name: (row.divergence, row.source, row.gold_weight) for name, row in METHODS.items()}
    assert rows == {
        "sft": (None, Source.GOLD, 1),
        "fkd": ("forward-kl", Source.GOLD, 1),
        "rkd": ("reverse-kl", Source.GOLD, 1),
        "f-distill": ("total-variation", Source.TEACHER_AND_STUDENT, 0),
        "imitkd": ("forward-kl", Source.GOLD_AND_STUDENT, 0),
        "gkd-fkl": ("forward-kl", Source.STUDENT, 0),
        "gkd-rkl": ("reverse-kl", Source.STUDENT, 0),
        "gkd-jsd": ("jensen-shannon", Source.STUDENT, 0),
        "kid": ("reverse-kl", Source.IMPERFECT, 1),
        "kid-mask-only": ("reverse-kl", Source.MASKED, 1),
        "switch": ("reverse-kl", Source.SWITCH, 0),
    }


def test_every_divergence_of_the_table_exists():
    assert {row.divergence for row in METHODS.values() if row.divergence} <= set(DIVERGENCES)
