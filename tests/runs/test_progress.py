"""Counting bars: what a person sees in a terminal, and that logs and pipes get nothing."""

import io

import pytest
from rich.console import Console

from distilsql.runs.progress import counting_bar


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_counting_bar_shows_how_many_are_done_in_a_terminal_and_writes_nothing_elsewhere(
    is_terminal, monkeypatch
):
    monkeypatch.setenv("TERM", "xterm")
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=is_terminal, width=100)
    with counting_bar("judging", console) as on_progress:
        on_progress(3, 7)
    if is_terminal:
        assert "judging" in shown.getvalue()
        assert "3/7" in shown.getvalue()
    else:
        assert shown.getvalue() == ""
