"""An exported folder opens elsewhere, and its GGUF files answer in llama.cpp as the original does."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from distilsql.errors import ModelError, RunError
from distilsql.export import export as export_module
from distilsql.export.export import export
from distilsql.export.llama_cpp import LlamaCpp
from distilsql.export.proof import Original, check_tokens, prove

pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def exported(teacher, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "out"
    return export(teacher, out, name="teacher", gguf=["f16", "q8_0"])


def test_the_folder_is_a_transformers_folder_with_modelfiles(exported, teacher):
    reloaded = AutoModelForCausalLM.from_pretrained(exported.folder, dtype=torch.float32).state_dict()
    for name, tensor in teacher.decoder.model.causal_lm.state_dict().items():
        assert torch.equal(reloaded[name], tensor.float()), name
    lines = (exported.folder / "Modelfile-q8_0").read_text().splitlines()
    assert lines[:3] == ["FROM ./teacher-q8_0.gguf", 'TEMPLATE """{{ .Prompt }}"""', 'PARAMETER stop "<eos>"']
    assert f"PARAMETER num_ctx {teacher.prompt.longest_tokens}" in lines
    card = (exported.folder / "README.md").read_text()
    assert "was not measured: no test questions were given" in card
    assert "ollama create teacher -f Modelfile-q8_0" in card


def test_nothing_is_overwritten_and_a_refusal_leaves_nothing(exported, teacher, tmp_path, monkeypatch):
    with pytest.raises(RunError, match="is there already"):
        export(teacher, exported.folder, name="teacher")

    def refuse(*arguments, **options):
        raise ModelError("no")

    monkeypatch.setattr(export_module, "write_gguf", refuse)
    with pytest.raises(ModelError):
        export(teacher, tmp_path / "out", name="teacher", gguf=["f16"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_llama_cpp_answers_as_the_original_does(exported, teacher, questions):
    pytest.importorskip("xllamacpp")
    original = Original(teacher, questions)
    eos = teacher.decoder.tokenizer.eos_token_id
    for quantization, mean, most in (("f16", 2e-3, 0.1), ("q8_0", 0.05, 1.0)):
        with LlamaCpp(exported.files[quantization], context_tokens=512, threads=1, eos_token_id=eos) as file:
            proof = prove(original, file)
        assert proof.questions == 12
        assert proof.mean_logp_difference < mean
        assert proof.largest_logp_difference < most
        assert proof.same_completions >= 11
        assert proof.original_accuracy > 0.5
        assert proof.only_original + proof.only_exported <= 1


@pytest.mark.slow
def test_a_file_with_its_rows_in_the_wrong_order_is_found_out(teacher, questions, tmp_path, monkeypatch):
    pytest.importorskip("xllamacpp")
    from distilsql.export import gguf_file

    monkeypatch.setattr(gguf_file, "_in_its_order", lambda name, tensor, config: tensor)
    path = tmp_path / "wrong.gguf"
    weights, tokenizer = teacher.decoder.model.causal_lm, teacher.decoder.tokenizer
    gguf_file.write_gguf(weights, tokenizer, path, "f16", name="wrong")
    with LlamaCpp(path, context_tokens=512, threads=1, eos_token_id=tokenizer.eos_token_id) as file:
        proof = prove(Original(teacher, questions), file)
    assert proof.mean_logp_difference > 0.05
    assert proof.exported_accuracy < proof.original_accuracy


def test_a_tokenizer_that_reads_otherwise_is_found_out(teacher, questions):
    original = Original(teacher, questions.take(2, seed=0))
    tokenizer = teacher.decoder.tokenizer

    def other(text):
        return tuple(tokenizer(text.replace("many", "few"), add_special_tokens=False).input_ids)

    check_tokens(original, lambda text: tuple(tokenizer(text, add_special_tokens=False).input_ids))
    with pytest.raises(ModelError, match="reads a prompt otherwise, from token"):
        check_tokens(original, lambda text: other(text)[1:])


def test_the_card_holds_the_proof(teacher, questions, tmp_path):
    pytest.importorskip("xllamacpp")
    made = export(teacher, tmp_path / "out", name="teacher", gguf=["q4_0"], benchmark=questions)
    proof = made.proofs["q4_0"]
    assert json.loads((made.folder / "proof.json").read_text())["q4_0"] == proof.as_json()
    card = (made.folder / "README.md").read_text()
    assert f"| {100 * proof.exported_accuracy:.1f} % |" in card
    assert "teacher-q4_0.gguf" in card
