"""Splits: no query is in two of them, and some structures are in the test alone.

A query's split follows from its text and the seed, so it stays when more pairs are made.
"""

from sqlglot import exp

from distilsql.data.dice import Dice

SPLITS = {"train": 0.82, "valid": 0.07, "test": 0.11}
# Of all structures: queries like them are not trained on.
UNSEEN_SHARE = 0.05


def split_of(query_key: str, structure: str, seed: int) -> tuple[str, bool]:
    """The split, and whether the query's structure is held out for the test."""
    if Dice(f"{seed}/structure/{structure}").chance(UNSEEN_SHARE):
        return "test", True
    return Dice(f"{seed}/query/{query_key}").weighted(SPLITS), False


def structure_of(query: exp.Expr) -> str:
    """The query without its names and constants."""

    def bare(node: exp.Expr) -> exp.Expr:
        if isinstance(node, exp.Column | exp.Table):
            return exp.Var(this="_")
        return exp.Var(this="?") if isinstance(node, exp.Literal) else node

    return query.transform(bare).sql()
