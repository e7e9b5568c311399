"""A model that is filled weight by weight is the one that transformers loads."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from conftest import make_gpt2, make_llama, random_batch
from safetensors.torch import load_file, save_file

from unlearun.models import LoRA, Policy, add_adapters, load_model
from unlearun.models.share_loading import open_shares

CPU = torch.device("cpu")


def save(model, folder, **settings):
    model.save_pretrained(folder, **settings)
    return str(folder)


def tied_llama():
    model = make_llama()
    model.config.tie_word_embeddings = True
    model.lm_head.weight = model.model.embed_tokens.weight
    return model


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("size", ["1GB", "20KB"])  # one file, or an index and several
@pytest.mark.parametrize("make", [make_llama, make_gpt2, tied_llama])
def test_weights_buffers_and_logits_are_those_of_the_whole_model(tmp_path, make, size, dtype):
    where = save(make(), tmp_path, max_shard_size=size)
    assert (tmp_path / "model.safetensors.index.json").is_file() == (size == "20KB")
    before = torch.get_rng_state()
    bare, stored = open_shares(where, dtype)
    assert all(weight.is_meta for weight in bare.parameters())
    assert torch.equal(torch.get_rng_state(), before)
    policy = Policy(bare)
    stored.fill(policy, CPU)
    whole = load_model(where, dtype)
    for kind in ("named_parameters", "named_buffers"):
        expected, found = (dict(getattr(model, kind)()) for model in (whole, bare))
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name].dtype == value.dtype, name
            assert torch.equal(found[name], value), name
    assert bare.generation_config.to_dict() == whole.generation_config.to_dict()
    ids = random_batch().input_ids
    assert torch.equal(bare.eval()(ids).logits, whole.eval()(ids).logits)


def test_what_is_one_weight_stays_one(tmp_path):
    bare, stored = open_shares(save(tied_llama(), tmp_path), "float32")
    stored.fill(Policy(bare), CPU)
    assert bare.lm_head.weight is bare.model.embed_tokens.weight


def test_adapters_that_were_added_before_stay_as_they_are(tmp_path):
    where = save(make_llama(), tmp_path)
    models = []
    for fill in (False, True):
        torch.manual_seed(0)
        model, stored = open_shares(where, "float32") if fill else (load_model(where), None)
        add_adapters(model, LoRA(r=2), [model])
        if fill:
            stored.fill(Policy(model), CPU)
        models.append(model.state_dict())
    assert all(torch.equal(models[1][name], weight) for name, weight in models[0].items())


def test_a_model_without_its_head_s_prefix_is_found(tmp_path):
    """The files of some published models hold the decoder's weights under its own names."""
    where = save(make_gpt2(), tmp_path)
    file = tmp_path / "model.safetensors"
    save_file(
        {key.removeprefix("transformer."): value for key, value in load_file(file).items()}, file, {"format": "pt"}
    )
    bare, stored = open_shares(where, "float32")
    stored.fill(Policy(bare), CPU)
    assert torch.equal(bare.transformer.wte.weight, load_model(where).transformer.wte.weight)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ("missing", "its files have no lm_head.weight"),
        ("shape", "its files have another shape of lm_head.weight"),
        ("quantised", "its weights are quantised"),
        ("encoder", "whether it is causal is yet to be tried"),
        ("adapter", "it is an adapter"),
    ],
)
def test_what_cannot_be_filled_so_is_left_to_transformers(tmp_path, caplog, spoil, reason):
    where = save(make_llama(), tmp_path)
    file, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    weights, settings = load_file(file), json.loads(config.read_text())
    if spoil == "missing":
        del weights["lm_head.weight"]
    if spoil == "shape":
        weights["lm_head.weight"] = weights["lm_head.weight"][:-1].clone()
    if spoil == "quantised":
        settings["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    if spoil == "encoder":
        settings["is_decoder"] = False
    if spoil == "adapter":
        (tmp_path / "adapter_config.json").write_text("{}")
    save_file(weights, file, {"format": "pt"})
    config.write_text(json.dumps(settings))
    with caplog.at_level(logging.INFO, logger="unlearun"):
        assert open_shares(where, "float32") is None
    assert f"before it is sharded: {reason}" in caplog.text


def test_experts_that_transformers_puts_together_are_left_to_it(tmp_path, caplog):
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 32, "moe_intermediate_size": 16, "vocab_size": 64}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "num_hidden_layers": 1, "num_experts": 4}
    config = AutoConfig.for_model("qwen2_moe", shared_expert_intermediate_size=16, **sizes, **heads)
    where = save(AutoModelForCausalLM.from_config(config), tmp_path)
    with caplog.at_level(logging.INFO, logger="unlearun"):
        assert open_shares(where, "float32") is None
    assert "transformers puts some of its weights together" in caplog.text
