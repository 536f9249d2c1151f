"""Drafts by lookup: the longest run known counts, the latest of equal ones, and memory is bounded."""

from distilsql.models.lookup import Lookup


def test_a_draft_is_what_followed_the_longest_run():
    lookup = Lookup()
    lookup.learn([1, 2, 3, 4, 5, 6])
    lookup.learn([9, 3, 4, 7, 8])
    assert lookup.draft([2, 3, 4], 2) == (5, 6)
    assert lookup.draft([3, 4], 2) == (7, 8)  # the latest
    assert lookup.draft([0, 3, 4], 1) == (7,)
    assert lookup.draft([9, 3, 4], 9) == (7, 8)


def test_what_is_not_known_or_too_short_drafts_nothing():
    lookup = Lookup()
    lookup.learn([1, 2, 3])
    assert lookup.draft([], 3) == lookup.draft([2], 3) == lookup.draft([5, 6], 3) == ()
    assert lookup.draft([2, 3], 3) == ()  # nothing followed
    assert lookup.draft([1, 2], 0) == ()


def test_memory_is_bounded():
    lookup = Lookup(most_known=100)
    for start in range(50):
        lookup.learn(range(start * 100, start * 100 + 20))
    assert len(lookup) < 200
    assert lookup.draft([4900, 4901], 2) == (4902, 4903)
    assert lookup.draft([3, 4], 2) == ()
    lookup.learn(range(20))  # forgotten, so it is learnt again
    assert lookup.draft([3, 4], 2) == (5, 6)
