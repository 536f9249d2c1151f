"""Drafts by lookup: what followed the last few tokens before, in a prompt or in a completion (Saxena 2023).

SQL repeats what its prompt spells out, names of tables and columns and values of the question, and what was written of
the same database before. A draft costs nothing to make; the model checks all of its tokens in one step, and what it
would not have written itself is forgotten, so completions stay what they are.
"""

from collections.abc import Sequence

# The longest run of tokens that is looked up, and the shortest: one token alone is followed by too many things.
LONGEST, SHORTEST = 4, 2
MOST_KNOWN = 200_000


class Lookup:
    """What followed which tokens, the latest counting; forgets all of it when it holds too much."""

    def __init__(self, most_known: int = MOST_KNOWN) -> None:
        self._most_known = most_known
        self._learned: set[tuple[int, ...]] = set()
        self._places: dict[tuple[int, ...], tuple[tuple[int, ...], int]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def learn(self, tokens: Sequence[int]) -> None:
        tokens = tuple(tokens)
        if tokens in self._learned:
            return
        if len(self._places) > self._most_known:
            self._places.clear()
            self._learned.clear()
        self._learned.add(tokens)
        for length in range(SHORTEST, LONGEST + 1):
            for end in range(length, len(tokens)):
                self._places[tokens[end - length : end]] = (tokens, end)

    def draft(self, written: Sequence[int], most: int) -> tuple[int, ...]:
        """At most `most` tokens that may follow `written`: those behind the longest run of its last tokens known."""
        for length in range(LONGEST, SHORTEST - 1, -1):
            found = self._places.get(tuple(written[-length:])) if len(written) >= length else None
            if found is not None:
                tokens, end = found
                return tuple(tokens[end : end + most])
        return ()
