"""How a recipe names models and examples that were in memory when a run was made: no path leads back to them.

`memory` asks for whatever is passed to `train`; the recipe in the run folder says `memory:` and the beginning of a
SHA-256 instead, of the weights or the examples, so that nothing else is taken for them later.
"""

IN_MEMORY = "memory"


def memory_name(sha256: str) -> str:
    """`memory:` and the first 16 hex digits."""
    return f"{IN_MEMORY}:{sha256[:16]}"


def is_in_memory(name: str) -> bool:
    return name == IN_MEMORY or name.startswith(f"{IN_MEMORY}:")


def said_of_memory(name: str, what: str, argument: str) -> str:
    """The sentences for whoever looks for `name`, such as a "student", where a path is needed."""
    return (
        f"{name} is no path: the {what} of this run was in memory when it was made. From Python, pass it again "
        f"(distilsql.train(recipe, out, {argument})); or save it and name its folder or file in the recipe."
    )
