"""Example and Schema to Prompt: the CodeS format, kept within a token budget."""
