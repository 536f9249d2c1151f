"""Requests that a local model answers together: each has the answers that it has alone."""

import random
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from distilsql.errors import ModelError
from distilsql.inference import writer as writer_module
from distilsql.inference.writer import ROWS, LocalWriter
from distilsql.models.tree_model import TreeModel
from distilsql.synthesis.teacher.asker import Request, lines_said

TEMPLATE = (
    "{% for message in messages %}{% if message.role == 'system' and no_system %}"
    "{{ raise_exception('no system role') }}{% endif %}[{{ message.role }}]{{ message.content }}\n"
    "{% endfor %}[assistant]"
)
TOKENS = 40
SCHEMA = "table singer: name (text), age (integer), country (text)\n" * 3
QUESTIONS = [
    "How many singers are there?",
    "How many singers are older than 30?",
    "How old?",
    "List all names.",
    "",
    "Who sings in France?",
]


@pytest.fixture(params=["template", pytest.param("plain", marks=pytest.mark.slow)])
def writer(tiny_models, request):
    """In float64, so that what shares a batch changes no token."""
    writer = LocalWriter(str(tiny_models["student"]), precision="float32")
    causal_lm = AutoModelForCausalLM.from_pretrained(tiny_models["student"], dtype=torch.float64)
    writer._model = TreeModel(causal_lm)
    writer._options = replace(writer._options, max_new_tokens=TOKENS)  # a random model knows no end
    writer._tokenizer.chat_template = TEMPLATE if request.param == "template" else None
    return writer


def requests(**options):
    return [
        Request(
            ({"role": "system", "content": task}, {"role": "user", "content": f"{SCHEMA}\nQuestion: {question}"}),
            **options,
        )
        for task in ("Write one query.", "Reword the question.")
        for question in QUESTIONS
    ]  # fmt: skip


def texts(writer, asked):
    replies = {}
    writer.ask(asked, lambda number, reply: replies.setdefault(number, reply))
    assert len(replies) == len(asked)
    assert all(len(replies[number].texts) == request.samples for number, request in enumerate(asked))
    return [replies[number] for number in range(len(asked))]


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["tree", "padded"])
def test_answers_are_the_same_alone_and_among_others(writer, layout):
    writer._model.layout = layout
    asked = requests() + requests(temperature=0.7, samples=3)
    if layout == "padded":
        asked = asked[::5]
    alone = [texts(writer, [request])[0] for request in asked]
    assert len(set(alone)) > len(alone) / 2
    order = random.Random(0).sample(range(len(asked)), len(asked))
    assert texts(writer, [asked[number] for number in order]) == [alone[number] for number in order]
    sampled = alone[-1].texts
    assert len(set(sampled)) == len(sampled), "each sample has random numbers of its own"


def test_greedy_answers_are_those_that_transformers_writes_of_the_whole_prompt(writer, tiny_models):
    causal_lm = AutoModelForCausalLM.from_pretrained(tiny_models["student"], dtype=torch.float64)
    asked = requests()
    for request, reply in zip(asked, texts(writer, asked), strict=True):
        prompt = writer._prompt(request.messages)
        ids = torch.tensor([prompt])
        new = causal_lm.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=TOKENS,
            do_sample=False,
            pad_token_id=writer._tokenizer.eos_token_id,
        )[0, len(prompt) :]
        assert reply.texts == (writer._tokenizer.decode(new, skip_special_tokens=True),)
        assert reply.tokens == len(prompt) + len(new)


def test_more_rows_than_a_batch_has(writer, monkeypatch):
    asked = requests(temperature=0.7, samples=3)
    whole = texts(writer, asked)
    monkeypatch.setattr(writer_module, "ROWS", 7)
    assert texts(writer, asked) == whole
    assert len(asked) * 3 < ROWS


def test_a_prefix_is_run_once(writer, monkeypatch):
    ran = []
    run = writer._model.run_prefix
    monkeypatch.setattr(writer._model, "run_prefix", lambda tokens: ran.append(len(tokens)) or run(tokens))
    asked = requests()[: len(QUESTIONS)]
    whole = texts(writer, asked)
    assert [texts(writer, [request])[0] for request in asked] == whole
    assert texts(writer, asked[1:]) == whole[1:]
    assert len(ran) == 1


def test_writing_ends_where_nothing_more_is_read(writer, monkeypatch):
    whole = texts(writer, requests(temperature=2.0, samples=8))
    lines = texts(writer, requests(temperature=2.0, samples=8, reads="line"))
    shorter = 0
    for full, line in zip(whole, lines, strict=True):
        for one, other in zip(full.texts, line.texts, strict=True):
            assert one.startswith(other)
            assert lines_said(one)[:1] == lines_said(other)[:1]
            shorter += len(other) < len(one)
    assert shorter
    monkeypatch.setattr(writer_module, "is_complete", lambda text: len(text) > 20)
    for full, query in zip(texts(writer, requests()), texts(writer, requests(reads="query")), strict=True):
        assert full.texts[0].startswith(query.texts[0])
        assert query.tokens < full.tokens


def test_another_token_that_ends_a_turn_ends_an_answer(writer):
    (request,) = requests()[:1]
    (full,) = texts(writer, [request])
    prompt = len(writer._prompt(request.messages))
    tokens = writer._tokenizer(full.texts[0], add_special_tokens=False).input_ids
    writer._ends = frozenset(tokens[:1])
    assert texts(writer, [request])[0].tokens < full.tokens
    assert prompt < full.tokens


def test_a_template_without_system_messages_gets_one_message(writer):
    if writer._tokenizer.chat_template:
        told, user = requests()[0].messages
        writer._tokenizer.chat_template = TEMPLATE.replace(" and no_system", "")
        prompt = writer._tokenizer.decode(writer._prompt((told, user)))
        assert prompt == f"[user]{told['content']}\n\n{user['content']}\n[assistant]"


def test_beyond_an_attention_window_no_tree_is_run(writer, monkeypatch, caplog):
    whole = texts(writer, requests()[:2])
    monkeypatch.setattr(writer_module, "attention_window", lambda config: 100)
    assert texts(writer, requests()[:2]) == whole
    assert writer._model.layout == "padded"
    assert "slower" in caplog.text


def test_what_cannot_be_loaded_is_said(tiny_models):
    with pytest.raises(ModelError, match="could be loaded"):
        LocalWriter("/nowhere/at/all")
    writer = LocalWriter(str(tiny_models["student"]))
    assert writer.name == str(tiny_models["student"].resolve())
    assert texts(writer, requests(samples=2)[:3]) == texts(writer, requests(samples=2)[:3])
