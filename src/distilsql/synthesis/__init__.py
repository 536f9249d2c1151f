"""Question/SQL pairs made from a database alone: profile, names, grammar, checks, wording. `docs/synthesis.md`."""
