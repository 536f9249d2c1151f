"""A model's fingerprint: the same wherever it was loaded from, another after the smallest change."""

import json
import shutil

import torch

from distilsql.models.fingerprint import model_fingerprint
from distilsql.models.load import load_model


def test_a_copy_in_another_folder_is_the_same_model(tiny_models, tmp_path):
    shutil.copytree(tiny_models["teacher"], tmp_path / "copy")
    one = load_model(tiny_models["teacher"], "float32")
    assert model_fingerprint(one) == model_fingerprint(load_model(tmp_path / "copy", "float32"))


def test_weights_precision_and_configuration_are_part_of_it(tiny_models, tmp_path):
    model = load_model(tiny_models["teacher"], "float32")
    seen = [model_fingerprint(model)]
    with torch.no_grad():
        last = model.model.layers[-1].mlp.down_proj.weight
        last[-1, -1] = torch.nextafter(last[-1, -1], torch.tensor(1.0))
    seen.append(model_fingerprint(model))
    seen.append(model_fingerprint(load_model(tiny_models["teacher"], "bfloat16")))
    shutil.copytree(tiny_models["teacher"], tmp_path / "copy")
    config = json.loads((tmp_path / "copy" / "config.json").read_text())
    (tmp_path / "copy" / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-4}))
    seen.append(model_fingerprint(load_model(tmp_path / "copy", "float32")))
    seen.append(model_fingerprint(load_model(tiny_models["student"], "float32")))
    assert len(set(seen)) == len(seen)
