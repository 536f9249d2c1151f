"""How a recipe refers to models and examples that were passed in memory and so have no path.

`memory` means whatever is passed to `train`. The recipe in the run folder has `memory:` and the first digits of a
SHA-256 of the weights or the examples instead, so that nothing else can be mistaken for them later.
"""

IN_MEMORY = "memory"


def memory_name(sha256: str) -> str:
    """`memory:` and the first 16 hex digits."""
    return f"{IN_MEMORY}:{sha256[:16]}"


def is_in_memory(name: str) -> bool:
    return name == IN_MEMORY or name.startswith(f"{IN_MEMORY}:")


def in_memory_message(name: str, what: str, argument: str) -> str:
    """The error message for `name` where a path is needed; `what` is the kind of object, such as "student"."""
    return (
        f"{name} is not a path: the {what} of this run was in memory when it was made. From Python, pass it again "
        f"(distilsql.train(recipe, out, {argument})); or save it and give its folder or file in the recipe."
    )
