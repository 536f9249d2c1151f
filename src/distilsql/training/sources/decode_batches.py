"""Which prompts are decoded together: rows of one database under its one prefix, small databases in one batch."""

from collections.abc import Sequence
from dataclasses import dataclass

from distilsql.models.batches import fill_batches
from distilsql.models.tree import PromptTree
from distilsql.training.window_tree import WindowTree

# (number of the tree in the round, row in that tree)
Place = tuple[int, int]


@dataclass(frozen=True)
class DecodeTree:
    """Rows that share one prefix, as a tree of their own; `places` says where each row came from."""

    item: WindowTree
    places: tuple[Place, ...]


def decode_batches(
    items: Sequence[WindowTree], places: Sequence[Place], max_rows: int
) -> list[list[DecodeTree]]:
    """The given rows of `items`, each once, in batches of at most `max_rows`; rows that share a prefix are one tree.

    A batch takes as many steps as its longest row. Where a database has more rows than fit, they are therefore
    sorted by the length of their gold query, the best guess at the length of what will be written. Rows of
    different epochs do not share a tree, because a tree's random streams are those of one epoch.
    """
    groups: dict[tuple[str, int], list[Place]] = {}
    for tree, row in places:
        groups.setdefault((items[tree].prefix_key, items[tree].epoch), []).append((tree, row))
    for group in groups.values():
        if len(group) > max_rows:
            group.sort(key=lambda place: len(items[place[0]].examples[place[1]].gold))
    return [
        [_merged(items, part) for part in batch] for batch in fill_batches(list(groups.values()), max_rows)
    ]


def _merged(items: Sequence[WindowTree], places: Sequence[Place]) -> DecodeTree:
    first = items[places[0][0]]
    item = WindowTree(
        first.prefix_key,
        PromptTree(first.tree.prefix, tuple(items[tree].tree.questions[row] for tree, row in places)),
        tuple(items[tree].examples[row] for tree, row in places),
        tuple(items[tree].numbers[row] for tree, row in places),
        first.epoch,
    )
    return DecodeTree(item, tuple(places))
