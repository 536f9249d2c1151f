"""Completion sources: who writes the completions that are trained on, one file each."""
