"""The command line in this process: what a user would see, without the seconds that starting Python and torch takes."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from distilsql import cli


@dataclass(frozen=True)
class Said:
    """A command's exit status, and what it wrote."""

    status: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """All of it, each run of white space one blank."""
        return " ".join((self.err + self.out).split())


RunHere = Callable[..., Said]


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunHere:
    """`run_here("evaluate", "p.sql", cwd=folder, environment={})` runs `distilsql evaluate p.sql` in that folder."""

    def run(*arguments: str, cwd: Path, environment: Mapping[str, str] | None = None) -> Said:
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["distilsql", *arguments])
        for name, value in (environment or {}).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        said = capsys.readouterr()
        return Said(int(stop.value.code or 0), said.out, said.err)

    return run
