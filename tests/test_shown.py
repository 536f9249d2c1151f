"""What a database or a model wrote is shown, not sent to the terminal."""

import pytest
from rich.console import Console

from distilsql.databases.execute import Execution, Outcome
from distilsql.report.page import escape
from distilsql.runs.ask import Answer, rows_table
from distilsql.shown import shown


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain", "plain"),
        ("Ärzte 東京 🙂 👩\u200d🔬", "Ärzte 東京 🙂 👩\u200d🔬"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("a\rb\x08\x7f", "a\\rb\\x08\\x7f"),
        ("\x9b31m", "\\x9b31m"),  # the eight-bit form of ESC [
        ("abc\u202edef\u2066", "abc\\u202edef\\u2066"),  # turns what follows around
        ("a\u200bb\ufeff\u2028", "a\\u200bb\\ufeff\\u2028"),
        ("\udc80", "\\udc80"),
        ("a\nb\tc\0", "a\\nb\\tc\\x00"),
        (12.5, "12.5"),
        (b"\x1b", "b'\\x1b'"),
    ],
)
def test_control_characters_are_spelled(text, seen):
    assert shown(text) == seen


def test_lines_may_stay():
    assert shown("a\n\tb\x1b", keep_lines=True) == "a\n\tb\\x1b"


def test_cells_and_column_names_reach_the_terminal_as_text():
    result = Execution(
        Outcome.ROWS, rows=(("\x1b]0;title\x07", None, "[bold]x"),), columns=("a\x1b[2J", "b\nc", "d")
    )
    console = Console(width=120, color_system=None)
    with console.capture() as capture:
        console.print(rows_table(Answer("SELECT 1", result), 5))
    assert "\x1b" not in capture.get()
    assert "\\x1b]0;title\\x07" in capture.get()
    assert "a\\x1b[2J" in capture.get()
    assert "b\\nc" in capture.get()
    assert "[bold]x" in capture.get()


def test_the_page_shows_them_too():
    assert escape("<\x1b>\n") == "&lt;\\x1b&gt;\n"
