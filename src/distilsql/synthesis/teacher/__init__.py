"""Wording by a model: paraphrases that the same model, not shown the query, answers as the query does."""
