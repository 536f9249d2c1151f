"""Gold completions as they are: sft, fkd, rkd."""

from distilsql.training.sources.source import CompletionSource


class Gold(CompletionSource):
    """Trains on the gold completions themselves."""

    is_fixed = True

    def lines_up_with_gold(self) -> bool:
        return True
