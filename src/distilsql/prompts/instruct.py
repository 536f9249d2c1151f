"""The prompt of instruction following, as MiniLLM and DistiLLM write it (the template is Alpaca's, Taori et al. 2023).

    Below is an instruction that describes a task, paired with an input that provides further context. Write a
    response that appropriately completes the request.

    ### Instruction:
    Rewrite the sentence to be concise.

    ### Input:
    If you find it necessary to increase the scope, please let me know.

    ### Response:

The prefix, shared by all instructions with an input and by all without one, ends before the instruction.
"""

from bisect import bisect_right
from collections.abc import Callable

from distilsql.data.example import Instruction
from distilsql.prompts.codes import Prompt

_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n### Instruction:\n"
)
_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n### Instruction:\n"
)
_RESPONSE = "\n\n### Response:\n"


def build_instruct_prompt(example: Instruction) -> Prompt:
    """The whole prompt, whatever its length."""
    if not example.input:
        return Prompt(_WITHOUT_INPUT, example.instruction + _RESPONSE)
    return Prompt(_WITH_INPUT, _about(example.instruction, example.input))


def _about(instruction: str, text: str) -> str:
    return f"{instruction}\n\n### Input:\n{text}{_RESPONSE}"


def fit_instruct_prompt(
    example: Instruction, count_tokens: Callable[[str], int], budget_tokens: int
) -> Prompt:
    """The prompt in at most `budget_tokens`, with as many of the input's words, from the front, as fit.

    Instruction and response marker always stay: a prompt whose instruction alone is too long comes out too long.
    Cutting the prompt's end instead, as MiniLLM does, would lose both the marker and what it marks.
    """
    whole = build_instruct_prompt(example)
    room = budget_tokens - count_tokens(whole.prefix)
    if count_tokens(whole.suffix) <= room or not example.input:
        return whole
    words = example.input.split(" ")

    def first(count: int) -> str:
        return _about(example.instruction, " ".join(words[:count]))

    fitting = bisect_right(range(1, len(words)), room, key=lambda count: count_tokens(first(count)))
    cut = f"the last {len(words) - fitting} of the input's {len(words)} words"
    return Prompt(whole.prefix, first(fitting), "input cut", (cut,))
