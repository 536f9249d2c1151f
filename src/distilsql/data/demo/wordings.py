"""How people ask: for every pattern of query, the sentences that ask it.

A slot in braces is filled with one of several phrases; `{mod}` is the condition ("from Oslo", "whose price is above
20") and may be empty. The same query asked twice differs in sentence, in phrases, or in both.
"""

WORDINGS: dict[str, tuple[str, ...]] = {
    "list": (
        "What are the {attrs} of {things} {mod}?",
        "List the {attr} of every {thing} {mod}.",
        "Show the {attrs} of all {things} {mod}.",
        "Find the {things} {mod} and give their {attrs}.",
        "Give me the {attr} of each {thing} {mod}.",
    ),
    "count": (
        "How many {things} {mod} are there?",
        "Count the {things} {mod}.",
        "What is the number of {things} {mod}?",
        "Give me the number of all {things} {mod}.",
    ),
    "aggregate": (
        "What is the {agg} {num} of {things} {mod}?",
        "Find the {agg} {num} of all {things} {mod}.",
        "For {things} {mod}, what is the {agg} {num}?",
        "Give me the {agg} {num} of the {things} {mod}.",
    ),
    "two_aggregates": (
        "What are the {agg} and {other_agg} {num} of {things} {mod}?",
        "Find the {agg} and {other_agg} {num} of all {things} {mod}.",
        "For {things} {mod}, give the {agg} and the {other_agg} {num}.",
        "Show the {agg} and {other_agg} {num} of the {things} {mod}.",
    ),
    "distinct": (
        "What are the different {cats} of {things} {mod}?",
        "List the distinct {cats} of all {things} {mod}.",
        "Show every different {cat} of {things} {mod}.",
        "Which different {cats} do the {things} {mod} have?",
    ),
    "count_distinct": (
        "How many different {cats} do the {things} {mod} have?",
        "Count the distinct {cats} of all {things} {mod}.",
        "What is the number of different {cats} of {things} {mod}?",
        "Give me the number of distinct {cats} of the {things} {mod}.",
    ),
    "group_count": (
        "How many {things} {mod} are there for each {cat}?",
        "For each {cat}, count the {things} {mod}.",
        "Show every {cat} with the number of {things} {mod}.",
        "Give me the number of {things} {mod} per {cat}.",
    ),
    "group_aggregate": (
        "What is the {agg} {num} of {things} {mod} for each {cat}?",
        "For each {cat}, give the {agg} {num} of {things} {mod}.",
        "Show every {cat} with the {agg} {num} of {things} {mod}.",
        "Find the {agg} {num} per {cat} of all {things} {mod}.",
    ),
    "having_count": (
        "Which {cats} have {cmp} {k} {things} {mod}?",
        "Find every {cat} with {cmp} {k} {things} {mod}.",
        "List the {cats} shared by {cmp} {k} {things} {mod}.",
        "For which {cats} are there {cmp} {k} {things} {mod}?",
    ),
    "having_aggregate": (
        "For which {cats} is the {agg} {num} of {things} {mod} {cmp} {k}?",
        "Find every {cat} where the {agg} {num} of {things} {mod} is {cmp} {k}.",
        "Which {cats} have {things} {mod} with {agg} {num} {cmp} {k}?",
        "List the {cats} whose {things} {mod} have {agg} {num} {cmp} {k}.",
    ),
    "order": (
        "List the {attrs} of {things} {mod} sorted by {num} {direction}.",
        "What are the {attrs} of all {things} {mod}, ordered by {num} {direction}?",
        "Sort the {things} {mod} by {num} {direction} and give their {attrs}.",
        "Show the {attr} of every {thing} {mod} by {num} {direction}.",
    ),
    "top": (
        "What is the {attr} of {the_top}?",
        "Find {the_top} and give its {attr}.",
        "Give me the {attr} of {the_top}.",
        "Show the {attr} of {the_top}.",
    ),
    "top_some": (
        "What are the {attrs} of {the_top}?",
        "Find {the_top} and give their {attrs}.",
        "Give me the {attrs} of {the_top}.",
        "List the {attrs} of {the_top}.",
    ),
    "most_common": (
        "What is the {rank} common {cat} of {things} {mod}?",
        "Which {cat} is the {rank} common among {things} {mod}?",
        "Find the {rank} frequent {cat} of all {things} {mod}.",
        "Which {cat} occurs {rank} often among the {things} {mod}?",
    ),
    "pair": (
        "Show the {attr} of every {thing} {mod} with the {parent_attr} of its {parent}.",
        "For each {thing} {mod}, give its {attr} and the {parent_attr} of its {parent}.",
        "List the {attrs} of {things} {mod} and the {parent_attrs} of their {parents}.",
        "For all {things} {mod}, show the {attr} and the {parent_attr} of the {parent}.",
    ),
    "parent_count": (
        "How many {things} {mod} does each {parent} have?",
        "For each {parent}, give the {label} and the number of {things} {mod}.",
        "Show the {label} of every {parent} with the number of its {things} {mod}.",
        "Count the {things} {mod} of each {parent}.",
    ),
    "parent_having": (
        "Which {parents} have {cmp} {k} {things} {mod}?",
        "List the {labels} of {parents} with {cmp} {k} {things} {mod}.",
        "Find the {label} of every {parent} that has {cmp} {k} {things} {mod}.",
        "What are the {labels} of the {parents} with {cmp} {k} {things} {mod}?",
    ),
    "parent_most": (
        "Which {parent} has the most {things} {mod}?",
        "What is the {label} of the {parent} with the most {things} {mod}?",
        "Find the {parent} with the largest number of {things} {mod}.",
        "Give me the {label} of the {parent} that has the most {things} {mod}.",
    ),
    "parent_of_top": (
        "What is the {parent_attr} of the {parent} of {the_top}?",
        "Find the {parent} of {the_top} and give its {parent_attr}.",
        "Give me the {parent_attr} of the {parent} that has {the_top}.",
        "Which {parent_attr} does the {parent} of {the_top} have?",
    ),
    "parent_group": (
        "How many {things} {mod} are there for each {parent} {cat}?",
        "For each {cat} of the {parents}, count the {things} {mod}.",
        "Show every {parent} {cat} with the number of {things} {mod}.",
        "Give me the number of {things} {mod} per {cat} of the {parent}.",
    ),
}

AGGREGATES = {
    "avg": ("average", "mean"),
    "max": ("highest", "maximum"),
    "min": ("lowest", "minimum"),
    "sum": ("total", "combined"),
}
MORE_THAN = ("more than", "over")
FEWER_THAN = ("fewer than", "less than")
DIRECTIONS = {
    "ASC": ("in ascending order", "from low to high"),
    "DESC": ("in descending order", "from high to low"),
}
