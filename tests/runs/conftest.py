"""Tests here run in a tiny world, or read made-up run folders."""

from made_up_runs import make_run
from tiny_world import held_elsewhere, own_cache_folder, recipe, world

__all__ = ["held_elsewhere", "make_run", "own_cache_folder", "recipe", "world"]
