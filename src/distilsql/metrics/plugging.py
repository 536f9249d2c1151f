"""Predictions with their values exchanged for the gold's: Spider's `plug_value`, for systems that predict no values.

It raises scores by several points, because a wrong value in a right query is forgiven; scores with it say so.
"""

from collections.abc import Iterator
from itertools import islice, product

from distilsql.databases.sql_tokens import Token, tokenise

MAX_ALTERNATIVES = 1000


def plugged(predicted_sql: str, gold_sql: str) -> Iterator[str]:
    """The prediction with each of its values exchanged for one of the gold's, in every way, at most 1,000 of them.

    ASSUMED: every text and number of a query is a value, LIMIT's too.
    """
    values = list(dict.fromkeys(token.text for token in _values(gold_sql)))
    slots = _values(predicted_sql)
    if not values or not slots:
        return
    for chosen in islice(product(values, repeat=len(slots)), MAX_ALTERNATIVES):
        pieces, end = [], 0
        for slot, value in zip(slots, chosen, strict=True):
            pieces += [predicted_sql[end : slot.start], value]
            end = slot.start + len(slot.text)
        yield "".join(pieces) + predicted_sql[end:]


def _values(sql: str) -> list[Token]:
    return [token for token in tokenise(sql) if token.kind in ("text", "quoted", "number")]
