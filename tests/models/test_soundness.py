"""Files of a model that are not read, or not believed."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from conftest import CHARACTERS, make_llama, make_tokenizer
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertLMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM

from unlearun.errors import UnlearunError
from unlearun.models import load_model, load_tokenizer, open_shares
from unlearun.models.classifier import load_classifier

CODE = """
import pathlib
from transformers import LlamaConfig, LlamaForCausalLM
pathlib.Path({mark!r}).touch()
class OwnConfig(LlamaConfig):
    model_type = "own"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def folder(tmp_path):
    make_llama().save_pretrained(tmp_path / "model")
    make_tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def configure(folder, **settings):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def refused(folder, *expected):
    with pytest.raises(UnlearunError) as caught:
        load_model(str(folder))
    for words in expected:
        assert words in str(caught.value)


def test_weights_that_are_not_in_the_files_are_an_error_and_not_random(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.down_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    refused(folder, f"1 of {len(weights) + 1} weights", "first: model.layers.1.mlp.down_proj.weight", "not whole")


def test_weights_of_another_shape_than_the_config_says_are_an_error(folder):
    configure(folder, intermediate_size=48)
    refused(folder, "6 weights of", "down_proj.weight is [32, 64], expected [32, 48]")


def test_weights_that_the_model_has_no_place_for_are_left_out_and_named(folder, caplog):
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "rotary.inv_freq": torch.ones(2)}, folder / "model.safetensors", metadata={"format": "pt"})
    with caplog.at_level(logging.INFO, logger="unlearun"):
        loaded = load_model(str(folder))
    assert "1 weights are left out" in caplog.text
    assert "first: rotary.inv_freq" in caplog.text
    assert all(torch.equal(value, weights[name]) for name, value in loaded.state_dict().items())


def test_an_encoder_is_no_causal_model_and_a_decoder_by_another_name_is(tmp_path):
    """Both configs say is_decoder: false; what tells them apart is whether a token sees what stands behind it."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    torch.manual_seed(0)
    BertLMHeadModel(BertConfig(vocab_size=30, initializer_range=0.5, **sizes)).save_pretrained(tmp_path / "bert")
    refused(tmp_path / "bert", "is a BertLMHeadModel that sees the tokens behind the one it predicts")
    GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=30, **sizes)).save_pretrained(tmp_path / "neox")
    assert not load_model(str(tmp_path / "neox")).config.is_decoder


# ---- pickles ----------------------------------------------------------------------------------------------------


def test_a_pickle_is_not_even_opened(folder, monkeypatch):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("the pickle was opened"))
    refused(folder, "are a pickle (pytorch_model.bin)", "save_pretrained(NEW)")


def test_beside_safetensors_a_pickle_does_no_harm(folder):
    (folder / "pytorch_model.bin").write_bytes(b"not even one")
    assert torch.equal(load_model(str(folder)).lm_head.weight, make_llama().lm_head.weight)


def test_the_pickle_of_an_adapter_is_refused_too(folder, tmp_path):
    pytest.importorskip("peft")
    (tmp_path / "adapter").mkdir()
    settings = {"base_model_name_or_path": str(folder), "peft_type": "LORA", "r": 2, "target_modules": ["q_proj"]}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(settings))
    torch.save({}, tmp_path / "adapter" / "adapter_model.bin")
    save_file({}, tmp_path / "adapter" / "other.safetensors")
    refused(tmp_path / "adapter", "are a pickle (adapter_model.bin)")


# ---- code of its own --------------------------------------------------------------------------------------------


@pytest.fixture
def own_code(folder, tmp_path, monkeypatch):
    """A model that brings code along; the file that the code makes when it runs."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    mark = tmp_path / "it ran"
    (folder / "own.py").write_text(CODE.format(mark=str(mark)))
    mapping = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    configure(folder, model_type="own", auto_map=mapping)
    return folder, mark


def test_code_of_a_model_is_not_run_and_nobody_is_asked(own_code, monkeypatch):
    folder, mark = own_code
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("transformers asked at the terminal"))
    refused(folder, "brings code of its own, which is not run", "--model.trust_remote_code true")
    with pytest.raises(UnlearunError, match="brings code of its own"):
        load_classifier(str(folder), "LABEL_0")
    load_tokenizer(str(folder))  # it needs none of the code
    assert not mark.exists()


def test_who_trusts_it_by_name_gets_it_with_a_warning_that_names_it(own_code, caplog):
    folder, mark = own_code
    with caplog.at_level(logging.WARNING, logger="unlearun"):
        loaded = load_model(str(folder), trusted=True)
    assert mark.exists()
    assert type(loaded).__name__ == "OwnModel"
    assert loaded.config.vocab_size == len(CHARACTERS) + 1
    assert f"code that {folder} brings along, if any, is run" in caplog.text
    caplog.clear()
    assert open_shares(str(folder), "float32", trusted=True) is not None
    assert f"code that {folder} brings along, if any, is run" in caplog.text


def test_an_adapter_has_the_tokenizer_of_its_model(folder, tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(folder)}))
    assert load_tokenizer(str(tmp_path / "adapter"))("abc")["input_ids"] == [0, 1, 2]


@pytest.mark.parametrize("load", [load_model, load_tokenizer])
def test_an_adapter_whose_model_is_gone_says_so(load, tmp_path):
    pytest.importorskip("peft")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/gone/base"}))
    with pytest.raises(UnlearunError, match=r"is an adapter of '/gone/base', .*there is no model at /gone/base"):
        load(str(tmp_path))
