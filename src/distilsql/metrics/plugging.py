"""Predictions with their values exchanged for the gold's: Spider's `plug_value`, for systems that predict no values.

It raises scores by several points, because a wrong value in a right query is forgiven; scores with it say so.
"""

import re
from collections.abc import Iterator
from itertools import islice, product

# A quoted text or a number that is not part of a name.
_VALUE = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|(?<![\w.])\d+(?:\.\d+)?(?![\w.])")
MAX_ALTERNATIVES = 1000


def plugged(predicted_sql: str, gold_sql: str) -> Iterator[str]:
    """The prediction with each of its values exchanged for one of the gold's, in every way, at most 1,000 of them.

    ASSUMED: every text and number of a query is a value, LIMIT's too.
    """
    values = list(dict.fromkeys(_VALUE.findall(gold_sql)))
    slots = list(_VALUE.finditer(predicted_sql))
    if not values or not slots:
        return
    for chosen in islice(product(values, repeat=len(slots)), MAX_ALTERNATIVES):
        pieces, end = [], 0
        for slot, value in zip(slots, chosen, strict=True):
            pieces += [predicted_sql[end : slot.start()], value]
            end = slot.end()
        yield "".join(pieces) + predicted_sql[end:]
