"""Filling windows and batches: first fit."""

from collections.abc import Sequence
from typing import TypeVar


def first_fit(sizes: Sequence[int], capacity: int, most_items: int | None = None) -> list[list[int]]:
    """Numbers of the items in each bin. Every item, in order, goes into the first bin that has room for it.

    A bin holds at most `most_items`. Items larger than `capacity` get a bin of their own.
    """
    bins: list[list[int]] = []
    room: dict[int, int] = {}  # of the bins that are not full
    for number, size in enumerate(sizes):
        place = next((place for place, left in room.items() if left >= size), len(bins))
        if place == len(bins):
            bins.append([])
            room[place] = capacity
        bins[place].append(number)
        room[place] -= size
        if room[place] <= 0 or len(bins[place]) == most_items:
            del room[place]
    return bins


Item = TypeVar("Item")


# Each prefix in a batch keeps its keys and values in memory until the batch is written.
MOST_PREFIXES = 16


def fill_batches(groups: Sequence[Sequence[Item]], max_rows: int) -> list[list[list[Item]]]:
    """Batches of at most `max_rows` rows; each is a list of groups, or of parts of groups that are larger than that.

    A group is cut only where it must be: each part of it runs the shared prefix again. A batch holds no more than
    `MOST_PREFIXES` groups.
    """
    parts = [
        list(group[start : start + max_rows]) for group in groups for start in range(0, len(group), max_rows)
    ]
    batches = first_fit([len(part) for part in parts], max_rows, MOST_PREFIXES)
    return [[parts[number] for number in batch] for batch in batches]
