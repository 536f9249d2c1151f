"""Spider's execution accuracy: how a query is read before it runs, and when two results are equal.

Written from the semantics of the official test-suite evaluator (Zhong et al. 2020), to give its verdict on every
example. `docs/evaluation.md` lists each rule and the few places where we differ.
"""

import marshal
import re
from collections import Counter
from collections.abc import Sequence

import sqlparse
from sqlparse import lexer
from sqlparse.engine.statement_splitter import StatementSplitter

from distilsql.databases.job import Cell, Row

ResultColumn = tuple[Cell, ...]

_CURRENT_YEAR = re.compile(r"YEAR\s*\(\s*CURDATE\s*\(\s*\)\s*\)\s*", re.IGNORECASE)
# What makes sqlparse nest, and so could reach its nesting limit (100) and make it refuse the query.
_OPENINGS = re.compile(r"[(\[]|case|begin|if|for|while|loop|declare", re.IGNORECASE)
_SURELY_PARSED_CHARACTERS = 2000
_SURELY_PARSED_OPENINGS = 60


def read_prediction(line: str, *, keep_distinct: bool) -> str:
    """The SQL the official evaluator would run for one line of a prediction file; '' where it runs nothing.

    It is cut at the first tab, and `value` becomes `1` everywhere, in identifiers and strings too.
    """
    sql = line.strip().split("\t")[0].replace("value", "1")
    return _read(sql, keep_distinct=keep_distinct)


def read_gold(sql: str, *, keep_distinct: bool) -> str:
    """The SQL that is run for a gold query, which gets every rewrite of a prediction but `value`."""
    return _read(sql.strip(), keep_distinct=keep_distinct)


def _read(sql: str, *, keep_distinct: bool) -> str:
    for spaced, joined in (("> =", ">="), ("< =", "<="), ("! =", "!=")):
        sql = sql.replace(spaced, joined)
    if not keep_distinct:
        sql = first_statement_without_distinct(sql)
    return _CURRENT_YEAR.sub("2020", sql)


def first_statement_without_distinct(sql: str) -> str:
    """Drop every DISTINCT token and every statement but the first; '' where sqlparse finds no statement.

    Only sqlparse's tokens matter, so its grouping, nine tenths of its time, is left out wherever it cannot
    refuse the query.
    """
    if len(sql) > _SURELY_PARSED_CHARACTERS or len(_OPENINGS.findall(sql)) > _SURELY_PARSED_OPENINGS:
        return _by_full_parse(sql)
    if sql.strip() and ";" not in sql[:-1] and "distinct" not in sql.lower():
        return sql
    statement = next(StatementSplitter().process(lexer.tokenize(sql)), None)
    if statement is None:
        return ""
    return "".join(token.value for token in statement.tokens if token.value.lower() != "distinct")


def _by_full_parse(sql: str) -> str:
    try:
        statements = sqlparse.parse(sql)
    except sqlparse.exceptions.SQLParseError:
        return ""
    if not statements:
        return ""
    return "".join(t.value for t in statements[0].flatten() if t.value.lower() != "distinct")


def order_matters(gold_sql: str) -> bool:
    """Whether rows are compared as a list: `order by`, with one space, anywhere in the gold as it is run."""
    return "order by" in gold_sql.lower()


def results_equal(
    gold: Sequence[Row], predicted: Sequence[Row], *, ordered: bool, official: bool = True
) -> bool:
    """Whether some order of the predicted columns makes the two results equal as bags (as lists if `ordered`).

    Cells are compared as Python compares them: 1 equals 1.0, without tolerance. Two empty results are equal
    whatever their columns. `official` keeps the official evaluator's quirk: see `_same_rows_in_any_column_order`.
    """
    if not gold and not predicted:
        return True
    if _identical(gold, predicted):
        return True
    if len(gold) != len(predicted) or len(gold[0]) != len(predicted[0]):
        return False
    if official and not _same_rows_in_any_column_order(gold, predicted, ordered=ordered):
        return False
    gold_columns, predicted_columns = list(zip(*gold, strict=True)), list(zip(*predicted, strict=True))
    if ordered:
        # Columns with equal lists of cells stand for each other, so comparing them as bags finds any pairing.
        return Counter(gold_columns) == Counter(predicted_columns)
    return _columns_match(gold_columns, predicted_columns)


def _identical(gold: Sequence[Row], predicted: Sequence[Row]) -> bool:
    """The same cells of the same types in the same places: most correct predictions, told in one pass of C code."""
    return marshal.dumps(list(gold), 2) == marshal.dumps(list(predicted), 2)


def _same_rows_in_any_column_order(gold: Sequence[Row], predicted: Sequence[Row], *, ordered: bool) -> bool:
    """A necessary condition, checked first because it is cheap.

    It is a part of the verdict too. Cells are sorted by their text, as the official evaluator sorts them, and
    so (1, 1.5) and (1.0, 1.5) sort differently ('1<' comes after '1.5', '1.0' before it) and count as unequal.
    """
    gold_rows, predicted_rows = map(_sort_cells, gold), map(_sort_cells, predicted)
    if ordered:
        return all(a == b for a, b in zip(gold_rows, predicted_rows, strict=True))
    return set(gold_rows) == set(predicted_rows)


def _sort_cells(row: Row) -> Row:
    return row if len(row) == 1 else tuple(sorted(row, key=_text_and_type))


def _text_and_type(cell: Cell) -> str:
    return str(cell) + str(type(cell))


def _columns_match(gold: list[ResultColumn], predicted: list[ResultColumn]) -> bool:
    """Whether some order of the predicted columns makes the rows equal gold's as bags.

    Depth first: one predicted column after another is put beside gold's, given up as soon as the first columns
    disagree. Columns that hold the same cells are tried once; those with other cells than gold's column never.
    """
    left = Counter(predicted)
    bags = {column: Counter(column) for column in left.keys() | set(gold)}
    # A row's first columns as one number, the same for equal rows of gold and of the prediction.
    number: dict[tuple[int, Cell], int] = {}

    def extended(rows: Sequence[int], column: ResultColumn) -> list[int]:
        return [number.setdefault(pair, len(number) + 1) for pair in zip(rows, column, strict=True)]

    start = [0] * len(gold[0])
    gold_rows, chosen_rows = [start], [start]
    chosen: list[ResultColumn] = []
    untried = [iter(list(left))]
    while len(chosen) < len(gold):
        depth = len(chosen)
        if len(gold_rows) == depth + 1:
            gold_rows.append(extended(gold_rows[depth], gold[depth]))
        for column in untried[depth]:
            if not left[column] or bags[column] != bags[gold[depth]]:
                continue
            rows = extended(chosen_rows[depth], column)
            if Counter(rows) == Counter(gold_rows[depth + 1]):
                break
        else:
            if not depth:
                return False
            untried.pop()
            chosen_rows.pop()
            left[chosen.pop()] += 1
            continue
        left[column] -= 1
        chosen.append(column)
        chosen_rows.append(rows)
        untried.append(iter(list(left)))
    return True
