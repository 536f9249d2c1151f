"""The prompt of instruction following: MiniLLM's template, split where the instruction begins; only inputs are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilsql.data.example import Instruction
from distilsql.prompts.instruct import build_instruct_prompt, fit_instruct_prompt


def instruction(text: str = "Rewrite it.", about: str = "") -> Instruction:
    return Instruction("x/0", text, about, ("Done.",))


def count_tokens(text: str) -> int:
    return len(text.split())


def test_the_template_is_that_of_minillm() -> None:
    assert build_instruct_prompt(instruction()).text == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the "
        "request.\n\n### Instruction:\nRewrite it.\n\n### Response:\n"
    )
    assert build_instruct_prompt(instruction(about="A text.")).text == (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        "response that appropriately completes the request.\n\n### Instruction:\nRewrite it.\n\n### Input:\nA text."
        "\n\n### Response:\n"
    )


@pytest.mark.parametrize("about", ["", "A text."])
def test_the_prefix_does_not_depend_on_the_instruction(about: str) -> None:
    one, other = (build_instruct_prompt(instruction(text, about)) for text in ("Rewrite it.", "Shorten it."))
    assert one.prefix == other.prefix
    assert "it." in one.suffix
    assert one.rule == "whole"


@given(st.lists(st.sampled_from(["a", "bb", "c\nd", ""]), max_size=30), st.integers(0, 80))
def test_a_cut_prompt_fits_with_as_much_of_the_input_as_does(words: list[str], budget: int) -> None:
    example = instruction("Keep every word of this.", " ".join(words))
    whole, fitted = build_instruct_prompt(example), fit_instruct_prompt(example, count_tokens, budget)
    assert fitted.prefix == whole.prefix
    if count_tokens(whole.text) <= budget or not example.input:
        assert fitted == whole
        return
    assert fitted.rule == "input cut"
    begin, end = "Keep every word of this.\n\n### Input:\n", "\n\n### Response:\n"
    assert fitted.suffix.startswith(begin)
    assert fitted.suffix.endswith(end)
    kept = fitted.suffix.removeprefix(begin).removesuffix(end)
    assert example.input.startswith(kept)
    count = len(kept.split(" ")) if kept else 0
    one_more = whole.prefix + begin + " ".join(words[: count + 1]) + end
    nothing = count_tokens(whole.prefix + begin + end)
    assert count_tokens(fitted.text) <= max(budget, nothing)
    assert count_tokens(one_more) > budget or one_more == whole.text or not words[count]
