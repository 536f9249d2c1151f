"""Tests here run in a tiny world."""

from tiny_world import held_elsewhere, learned, own_cache_folder, recipe, world

__all__ = ["held_elsewhere", "learned", "own_cache_folder", "recipe", "world"]
