"""How people ask: for every pattern, the sentences that ask it.

A slot in braces is filled with one of several phrases; `{mod}` is the condition ("whose price is above 20") and may be
empty. The same query asked twice differs in sentence, in phrases, or in both.
"""

WORDINGS: dict[str, tuple[str, ...]] = {
    "list": (
        "What are the {attrs} of the {things} {mod}?",
        "What is the {attr} of each {thing} {mod}?",
        "List the {attr} of every {thing} {mod}.",
        "Show the {attr} of each {thing} {mod}.",
        "Give me the {attrs} of all {things} {mod}.",
        "Find all {things} {mod} and show the {attr} of each.",
        "I need the {attr} of every {thing} {mod}.",
        "For each {thing} {mod}, what is the {attr}?",
    ),
    "all_columns": (
        "Show all columns of the {things} {mod}.",
        "Give me everything that is recorded of each {thing} {mod}.",
        "List all details of every {thing} {mod}.",
    ),
    "count": (
        "How many {things} {mod} are there?",
        "Count the {things} {mod}.",
        "What is the number of {things} {mod}?",
        "Give me the number of all {things} {mod}.",
        "I want to know how many {things} {mod} there are.",
    ),
    "aggregate": (
        "What is the {agg} {num} of the {things} {mod}?",
        "Find the {agg} {num} of all {things} {mod}.",
        "For {things} {mod}, what is the {agg} {num}?",
        "Calculate the {agg} {num} over all {things} {mod}.",
    ),
    "several_aggregates": (
        "What are the {aggs} {num} of the {things} {mod}?",
        "Find the {aggs} {num} of all {things} {mod}.",
        "For {things} {mod}, give the {aggs} {num}.",
        "Show the {aggs} {num} over all {things} {mod}.",
    ),
    "spread": (
        "What is the difference between the highest and the lowest {num} of the {things} {mod}?",
        "By how much do the highest and the lowest {num} of {things} {mod} differ?",
    ),
    "distinct": (
        "What are the different {cats} of the {things} {mod}?",
        "List the distinct {cats} of all {things} {mod}.",
        "Show every different {cat} of the {things} {mod}, each once.",
        "Which different {cats} do the {things} {mod} have?",
    ),
    "count_distinct": (
        "How many different {cats} do the {things} {mod} have?",
        "Count the distinct {cats} of all {things} {mod}.",
        "What is the number of different {cats} of the {things} {mod}?",
    ),
    "order": (
        "List the {attr} of every {thing} {mod}, sorted by {by} {direction}.",
        "What are the {attrs} of the {things} {mod}, ordered by {by} {direction}?",
        "Sort the {things} {mod} by {by} {direction} and give the {attr} of each.",
        "Show the {attr} of each {thing} {mod}, by {by} {direction}.",
    ),
    "top": (
        "What is the {attr} of the {thing} {mod} that has the {degree} {by}?",
        "Find the {thing} {mod} that has the {degree} {by} and give the {attr}.",
        "Show the {attr} of the {thing} {mod} that has the {degree} {by}.",
        "Of all {things} {mod}, which one has the {degree} {by}? Give the {attr}.",
    ),
    "top_some": (
        "What are the {attrs} of the {k} {things} {mod} that have the {degree} {by}?",
        "Find the {k} {things} {mod} that have the {degree} {by} and give the {attr} of each.",
        "Show the {attr} of each of the {k} {things} {mod} that have the {degree} {by}.",
        "Take the {k} {things} {mod} that have the {degree} {by}, and list the {attr} of each.",
    ),
    "extreme": (
        "What is the {attr} of every {thing} with the {degree} {by} of all?",
        "Show the {attr} of each {thing} that has the {degree} {by} of all {things}.",
        "Which {things} have the {degree} {by}? Give the {attr} of all of them, ties included.",
    ),
    "share": (
        "What percentage of the {things} {mod} are {things} {those}?",
        "Of all {things} {mod}, what is the percentage of {things} {those}?",
        "In percent, how many of the {things} {mod} are {things} {those}?",
    ),
    "per_year": (
        "How many {things} {mod} are there for each year of the {date}? Show the year and the number.",
        "For each year of the {date}, show the year and the number of {things} {mod}.",
        "Count the {things} {mod} by the year of their {date}; show year and count.",
    ),
    "than_another": (
        "What are the {attrs} of the {things} whose {num} is {side} than that of the {thing} whose {label} is {value}?",
        "Show the {attr} of each {thing} with a {side} {num} than the {thing} whose {label} is {value}.",
    ),
    "group_count": (
        "How many {things} {mod} are there for each {cat}? Show the {cat} and the number.",
        "For each {cat}, count the {things} {mod}; show the {cat} and the count.",
        "Show every {cat} with the number of {things} {mod}.",
        "Give me each {cat} and its number of {things} {mod}.",
    ),
    "group_aggregate": (
        "What is the {agg} {num} of the {things} {mod} for each {cat}? Show the {cat} too.",
        "For each {cat}, show the {cat} and the {agg} {num} of the {things} {mod}.",
        "Show every {cat} with the {agg} {num} of its {things} {mod}.",
        "Give me each {cat} and the {agg} {num} of its {things} {mod}.",
    ),
    "two_groups": (
        "How many {things} {mod} are there for each combination of {cat} and {other}? Show both and the number.",
        "For each {cat} and {other}, show both and the number of {things} {mod}.",
    ),
    "having_count": (
        "Which {cats} have {cmp} {k} {things} {mod}?",
        "Find every {cat} with {cmp} {k} {things} {mod}.",
        "List the {cats} that {cmp} {k} {things} {mod} share.",
        "For which {cats} are there {cmp} {k} {things} {mod}?",
    ),
    "having_aggregate": (
        "For which {cats} is the average {num} of the {things} {mod} {cmp} {k}?",
        "Find every {cat} where the average {num} of the {things} {mod} is {cmp} {k}.",
        "List the {cats} whose {things} {mod} have an average {num} {cmp} {k}.",
    ),
    "most_common": (
        "What is the {rank} common {cat} of the {things} {mod}?",
        "Which {cat} is the {rank} common among the {things} {mod}?",
        "Which {cat} has the {number} {things} {mod}?",
    ),
    "most_common_some": (
        "What are the {k} {rank} common {cats} of the {things} {mod}?",
        "Which {k} {cats} are the {rank} common among the {things} {mod}?",
        "Which {k} {cats} have the {number} {things} {mod}?",
    ),
    "best_group": (
        "Which {cat} has the {degree} {agg} {num} of {things} {mod}?",
        "For which {cat} is the {agg} {num} of the {things} {mod} the {degree}?",
        "Find the {cat} whose {things} {mod} have the {degree} {agg} {num}.",
    ),
    "average_size": (
        "How many {things} {mod} are there per {cat} on average?",
        "What is the average number of {things} {mod} per {cat}?",
    ),
    "group_sorted": (
        "Show every {cat} with the number of {things} {mod}, {direction}.",
        "How many {things} {mod} are there for each {cat}? Show the {cat} and the number, {direction}.",
    ),
    "best_of_group": (
        "For each {cat}, show the {cat} and the {label} of the {thing} with the {degree} {num}, ties included.",
        "In each {cat}, which {things} have the {degree} {num}? Show the {cat} and the {label}, with all that tie.",
    ),
    "pair": (
        "Show the {attr} of every {thing} {mod}, and the {parent_attr} of its {rel}.",
        "For each {thing} {mod}, give the {attr} and the {parent_attr} of its {rel}.",
        "List each {thing} {mod} with the {attr} and the {parent_attr} of its {rel}.",
        "What are the {attr} of each {thing} {mod} and the {parent_attr} of its {rel}?",
    ),
    "per_parent": (
        "For each {parent} with at least one {thing} {mod}, show the {label} and the number of such {things}.",
        "Show the {label} of every {parent} that has any {things} {mod}, and how many of them it has.",
        "How many {things} {mod} does each {parent} have? Show the {label} and the number; leave out those with none.",
    ),
    "per_parent_all": (
        "For every {parent}, also those without any {things}, show the {label} and the number of its {things}.",
        "How many {things} does each {parent} have? Show the {label} and the number, including those with none.",
    ),
    "parent_having": (
        "Which {parents} have {cmp} {k} {things} {mod}? Show the {label} of each.",
        "List the {labels} of {parents} with {cmp} {k} {things} {mod}.",
        "Find the {label} of every {parent} that has {cmp} {k} {things} {mod}.",
    ),
    "parent_most": (
        "Which {parent} has the most {things} {mod}? Give the {label}.",
        "What is the {label} of the {parent} with the most {things} {mod}?",
        "Find the {label} of the {parent} that has the largest number of {things} {mod}.",
    ),
    "parent_most_some": (
        "Which {k} {parents} have the most {things} {mod}? Give the {label} of each.",
        "What are the {labels} of the {k} {parents} with the most {things} {mod}?",
    ),
    "parent_aggregate": (
        "For each {parent} with at least one {thing} {mod}, show the {label} and the {agg} {num} of these {things}.",
        "Show the {label} of every {parent} that has any {things} {mod}, and the {agg} {num} of these {things}.",
    ),
    "parent_of_top": (
        "What is the {parent_attr} of the {rel} of the {thing} {mod} that has the {degree} {by}?",
        "Find the {thing} {mod} that has the {degree} {by}, and give the {parent_attr} of its {rel}.",
        "Of all {things} {mod}, take the one with the {degree} {by}: what is the {parent_attr} of its {rel}?",
    ),
    "parent_group": (
        "How many {things} {mod} are there for each {cat} of their {rel}? Show the {cat} and the number.",
        "For each {cat} of the {rel}, show the {cat} and the number of {things} {mod}.",
        "Count the {things} {mod} by the {cat} of their {rel}; show the {cat} and the count.",
    ),
    "parent_group_aggregate": (
        "What is the {agg} {num} of the {things} {mod} for each {cat} of their {rel}? Show the {cat} too.",
        "For each {cat} of the {rel}, show the {cat} and the {agg} {num} of the {things} {mod}.",
    ),
    "chain": (
        "For each {thing}, show the {attr} and the {grand_attr} of the {grand} of its {rel}.",
        "List the {attr} of every {thing}, with the {grand_attr} of its {rel}'s {grand}.",
    ),
    "chain_condition": (
        "Show the {attr} of each {thing} whose {rel} has a {grand} with {limit}.",
        "What are the {attrs} of the {things} whose {rel}'s {grand} has {limit}?",
    ),
    "link_list": (
        "For each {thing}, show the {label} together with the {other_attr} of each of its {others} {mod}.",
        "List the {label} of every {thing} with the {other_attr} of each {other} {mod} that it is linked to.",
    ),
    "link_count": (
        "For each {thing} with at least one {other} {mod}, show the {label} and the number of such {others}.",
        "How many {others} {mod} does each {thing} have? Show the {label} and the number; leave out those with none.",
    ),
    "link_most": (
        "Which {thing} has the most {others} {mod}? Give the {label}.",
        "What is the {label} of the {thing} with the largest number of {others} {mod}?",
    ),
    "above_average_count": (
        "Of the {parents} that have any {things}, which have more {things} than average? Show the {label} of each.",
        "Show the {label} of each {parent} with more {things} than the average {parent} that has any {things}.",
    ),
    "values_both": (
        "Which {cats} have both a {thing} {first} and a {thing} {second}?",
        "List the {cats} found among {things} {first} and also among {things} {second}.",
    ),
    "values_but_not": (
        "Which {cats} have a {thing} {first} but no {thing} {second}?",
        "List the {cats} found among {things} {first} but not among {things} {second}.",
    ),
    "parents_both": (
        "Show the {label} of each {thing} that has a {child} {first} and also a {child} {second}.",
        "Which {things} have both a {child} {first} and a {child} {second}? Give the {label} of each.",
    ),
    "parents_but_not": (
        "Show the {label} of each {thing} that has a {child} {first} but no {child} {second}.",
        "Which {things} have a {child} {first} but no {child} {second}? Give the {label} of each.",
    ),
    "shared_either": (
        "List all different {cats} of {things} and {others} together.",
        "Which {cats} do the {things} or the {others} have? Show each once.",
    ),
    "shared_both": (
        "Which {cats} are found among both the {things} and the {others}?",
        "List the {cats} that {things} and {others} have in common.",
    ),
    "shared_but_not": (
        "Which {cats} are found among the {things} but not among the {others}?",
        "List the {cats} of {things} that no {others} have.",
    ),
}
