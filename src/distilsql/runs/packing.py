"""Filling windows and batches: first fit."""

from collections.abc import Sequence


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
