"""Rows as pages, clients and spreadsheets take them, and which chart shows them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilsql.serve.cells import column_kinds, csv_text, json_cell
from distilsql.serve.chart import Chart, choose_chart


def test_a_browser_gets_no_number_that_it_would_change():
    assert json_cell(2**53 - 1) == 2**53 - 1
    assert json_cell(2**53) == str(2**53)
    assert json_cell(-(2**60)) == str(-(2**60))
    assert (json_cell(math.inf), json_cell(math.nan)) == ("inf", "nan")
    assert json_cell(b"\x00\xff") == "x'00ff'"
    assert len(json_cell(bytes(1000))) < 140
    assert json_cell(None) is None


def test_kinds_are_of_every_cell():
    rows = [
        (1, "2020-01-01", "a", None, 1),
        (2.5, "2020-01-02 10:00:00", "b", None, "x"),
        (None, None, None, None, 2),
    ]
    assert column_kinds("abcde", rows) == ["number", "date", "text", "text", "text"]
    assert column_kinds("a", []) == ["text"]


@given(st.text(max_size=8))
def test_no_cell_begins_a_formula(text):
    import csv
    import io

    ((cell,),) = csv.reader(io.StringIO(csv_text([text], [])), strict=True) or (("",),)
    assert cell.lstrip("'") == text.lstrip("'") or "\r" in text or "\n" in text
    assert not cell.startswith(("=", "@", "\t"))
    if cell.startswith(("+", "-")):
        float(cell)


@pytest.mark.parametrize(
    ("columns", "rows", "expected"),
    [
        (["city", "n"], [("Oslo", 3), ("Lima", 4)], Chart("bar", 0, 1)),
        (["n", "city"], [(3, "Oslo"), (4, "Lima")], Chart("bar", 1, 0)),
        (["day", "sold"], [("2020-01-01", 3), ("2020-01-02", 4)], Chart("line", 0, 1)),
        (["year", "sold"], [(2019, 3.0), (2020, 4.0)], Chart("line", 0, 1)),
        (["age", "price"], [(1, 2), (3, 4)], Chart("points", 0, 1)),
        (["city", "n"], [("Oslo", 3)], None),  # a bar compares nothing
        (["city", "n"], [("Oslo", 3), ("Oslo", 4)], None),  # not one bar a city
        (["city", "n"], [(f"c{i}", i) for i in range(80)], None),  # cannot be told apart
        (["city", "n"], [("Oslo", None), ("Lima", 4)], None),
        (["name", "shop_id"], [("a", 1), ("b", 2)], None),  # a key measures nothing
        (["name", "city"], [("a", "x"), ("b", "y")], None),
    ],
)
def test_charts_follow_from_the_types_of_columns(columns, rows, expected):
    assert choose_chart(columns, column_kinds(columns, rows), rows) == expected
