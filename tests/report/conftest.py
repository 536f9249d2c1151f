"""Tests here read made-up run folders."""

from made_up_runs import make_run, make_shared_run

__all__ = ["make_run", "make_shared_run"]
