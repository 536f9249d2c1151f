"""Plural: the regular one of an English noun, as the demo and made pairs have always said it."""


def plural(noun: str) -> str:
    """The plural of a noun phrase: of its head where it says "number of goals", else of its last word."""
    head, of, rest = noun.partition(" of ")
    if head.endswith("species"):
        return noun
    if head.endswith("y") and head[-2:-1] not in "aeiou":
        head = head[:-1] + "ie"
    elif head.endswith(("s", "x", "ch", "sh")):
        head += "e"
    return f"{head}s{of}{rest}"


def counted(count: int, noun: str) -> str:
    return f"{count} {noun if count == 1 else plural(noun)}"
