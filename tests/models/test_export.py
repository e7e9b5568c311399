"""A written folder gives the very same logits in plain transformers, and nothing is left behind where writing fails."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import CHARACTERS, FORGET, RETAIN, make_gpt2, make_llama, make_tokenizer
from lightning.pytorch import Trainer
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from unlearun.data import UnlearningDataModule
from unlearun.errors import UnlearunError
from unlearun.methods import SimNPO
from unlearun.models import CHECKPOINT_KEY, export_checkpoint, load_model, save_folder
from unlearun.models.export import read_checkpoint

IDS = torch.arange(24).reshape(2, 12)


def make_tied_llama():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(CHARACTERS) + 1,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        eos_token_id=len(CHARACTERS),
        bos_token_id=None,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)


MAKERS = {"untied": make_llama, "tied": make_tied_llama, "gpt2": make_gpt2}


@torch.no_grad()
def logits(model):
    return model.eval()(input_ids=IDS).logits


def assert_same(folder, model):
    """Loaded by plain transformers: the greatest difference of any logit is 0."""
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert loaded.dtype == model.dtype
    assert (logits(loaded) - logits(model)).abs().max() == 0
    assert loaded.config.tie_word_embeddings == model.config.tie_word_embeddings
    tied = loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    assert tied == model.config.tie_word_embeddings
    return loaded


# ---- save_folder ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MAKERS)
def test_round_trip(kind, tmp_path):
    model, tokenizer = MAKERS[kind](), make_tokenizer()
    folder = save_folder(model, tokenizer, tmp_path / "deep" / "down" / "model")
    assert folder == tmp_path / "deep" / "down" / "model"
    assert_same(folder, model)
    text = "Who is Carl?"
    assert AutoTokenizer.from_pretrained(folder)(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert [entry.name for entry in folder.parent.iterdir()] == ["model"]
    others = tmp_path / "others"
    others.mkdir()
    assert folder.stat().st_mode == others.stat().st_mode, "others may read it as they may read any new folder"


def test_round_trip_in_bfloat16(tmp_path):
    """Loaded in bfloat16 and not cast to it, for a cast reaches the rotary frequencies too, which no file holds."""
    model = load_model(str(save_folder(make_llama(), None, tmp_path / "float32")), "bfloat16")
    assert_same(save_folder(model, None, tmp_path / "bfloat16"), model)


def test_without_a_tokenizer(tmp_path):
    folder = save_folder(make_llama(), None, str(tmp_path / "model"))
    assert not (folder / "tokenizer.json").exists()
    assert (folder / "config.json").exists()


def test_takes_an_empty_folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    model = make_llama()
    assert_same(save_folder(model, None, folder), model)


def test_refuses_what_is_there_already(tmp_path):
    """Neither a file nor a folder with anything in it is touched."""
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    file = tmp_path / "file"
    file.write_text("mine too")
    for target in (full, file):
        with pytest.raises(UnlearunError, match="exists already and is not empty; name another folder"):
            save_folder(make_llama(), None, target)
    assert (full / "notes.txt").read_text() == "mine"
    assert file.read_text() == "mine too"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "full"]


class FullDiskTokenizer:
    """Fails after the model has been written."""

    def __init__(self, error):
        self.error = error

    def save_pretrained(self, folder):
        (folder / "tokenizer_config.json").write_text("{ hal")
        raise self.error


def test_leaves_nothing_behind_on_failure(tmp_path):
    """A full disk is the user's to mend; any other error is passed on. Either way there is no half a model."""
    disk = FullDiskTokenizer(OSError(28, "No space left on device"))
    with pytest.raises(UnlearunError, match=r"cannot write the model to .*model: No space left on device"):
        save_folder(make_llama(), disk, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt):
        save_folder(make_llama(), FullDiskTokenizer(KeyboardInterrupt()), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_cannot_write(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UnlearunError, match="cannot write the model to"):
        save_folder(make_llama(), None, tmp_path / "file" / "model")


# ---- export_checkpoint ------------------------------------------------------------------------------------------


def fit_one_step(model, folder, tokenizer):
    """One step that moves the weights well away from the start; the checkpoint stands where a run has it."""
    method = SimNPO(model=model, tokenizer=tokenizer)
    method.optimizer = {"class_path": "torch.optim.SGD", "init_args": {"lr": 1.0}}
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "num_sanity_val_steps": 0, "limit_val_batches": 0}
    trainer = Trainer(max_steps=1, accelerator="cpu", default_root_dir=folder, **quiet)
    trainer.fit(method, datamodule=UnlearningDataModule(FORGET, RETAIN))
    checkpoint = folder / "checkpoints" / "last.ckpt"
    trainer.save_checkpoint(checkpoint)
    return checkpoint, method.model


@pytest.fixture(scope="module", params=list(MAKERS))
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    checkpoint, model = fit_one_step(MAKERS[request.param](), folder / "run", make_tokenizer())
    assert (logits(model) - logits(MAKERS[request.param]())).abs().max() > 1e-3
    make_tokenizer().save_pretrained(folder / "tokenizer")
    return checkpoint, model, folder / "tokenizer"


def test_export(trained, tmp_path):
    checkpoint, model, tokenizer = trained
    folder = export_checkpoint(checkpoint, tmp_path / "model", str(tokenizer))
    loaded = assert_same(folder, model)
    assert type(loaded) is type(model)
    assert AutoTokenizer.from_pretrained(folder)("Anna")["input_ids"] == make_tokenizer()("Anna")["input_ids"]
    assert list(tmp_path.iterdir()) == [folder]


def test_export_needs_a_tokenizer(trained, tmp_path):
    """The tokenizer was an object without a name, so the checkpoint cannot say where it comes from."""
    checkpoint = trained[0]
    with pytest.raises(UnlearunError, match="add --tokenizer FOLDER_OR_ID"):
        export_checkpoint(checkpoint, tmp_path / "model")
    with pytest.raises(UnlearunError, match="there is no model at /nowhere/at/all"):
        export_checkpoint(checkpoint, tmp_path / "model", "/nowhere/at/all")
    assert not (tmp_path / "model").exists()


def test_export_takes_the_tokenizer_of_the_run(tmp_path):
    """From RUN/model beside RUN/checkpoints; without that from where the run had it."""
    (tmp_path / "source").mkdir()
    make_tokenizer().save_pretrained(tmp_path / "source")
    checkpoint, model = fit_one_step(make_llama(), tmp_path / "run", str(tmp_path / "source"))
    folder = export_checkpoint(checkpoint, tmp_path / "first")
    assert AutoTokenizer.from_pretrained(folder).chat_template is None
    template = "{{ messages[0]['content'] }}<eos>"
    make_tokenizer(template).save_pretrained(tmp_path / "run" / "model")
    folder = export_checkpoint(checkpoint, tmp_path / "second")
    assert AutoTokenizer.from_pretrained(folder).chat_template == template
    assert_same(folder, model)


def test_export_keeps_the_weights_dtype(trained, tmp_path):
    """What a config says of the dtype does not matter: weights in float32 are not rounded on their way."""
    checkpoint, model, tokenizer = trained
    stored = torch.load(checkpoint, weights_only=True)
    stored[CHECKPOINT_KEY]["model_config"]["dtype"] = "bfloat16"
    torch.save(stored, tmp_path / "a.ckpt")
    assert_same(export_checkpoint(tmp_path / "a.ckpt", tmp_path / "float32", str(tokenizer)), model)

    stored[CHECKPOINT_KEY]["model_config"]["dtype"] = "float32"
    stored["state_dict"] = {name: value.bfloat16() for name, value in stored["state_dict"].items()}
    torch.save(stored, tmp_path / "b.ckpt")
    folder = export_checkpoint(tmp_path / "b.ckpt", tmp_path / "bfloat16", str(tokenizer))
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert loaded.dtype == torch.bfloat16
    expected = {name: value.bfloat16() for name, value in model.state_dict().items()}
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())


def test_export_without_the_tied_head(trained, tmp_path):
    """Some strategies save a shared tensor once: a tied head may be missing, one of its own may not."""
    checkpoint, model, tokenizer = trained
    stored = torch.load(checkpoint, weights_only=True)
    del stored["state_dict"]["policy.model.lm_head.weight"]
    torch.save(stored, tmp_path / "last.ckpt")
    if model.config.tie_word_embeddings:
        assert_same(export_checkpoint(tmp_path / "last.ckpt", tmp_path / "model", str(tokenizer)), model)
    else:
        with pytest.raises(UnlearunError, match="does not fit a llama model"):
            export_checkpoint(tmp_path / "last.ckpt", tmp_path / "model", str(tokenizer))


def test_export_keeps_odd_settings_of_generation(trained, tmp_path):
    """A temperature without sampling, as many are published with: transformers saves none that it has not read."""
    checkpoint, _, tokenizer = trained
    stored = torch.load(checkpoint, weights_only=True)
    stored[CHECKPOINT_KEY]["generation_config"] |= {"temperature": 0.9, "top_p": 0.6, "do_sample": False}
    torch.save(stored, tmp_path / "odd.ckpt")
    folder = export_checkpoint(tmp_path / "odd.ckpt", tmp_path / "model", str(tokenizer))
    said = json.loads((folder / "generation_config.json").read_text())
    assert (said["temperature"], said["top_p"]) == (0.9, 0.6)


def test_export_refuses_a_folder_with_a_model(trained, tmp_path):
    checkpoint, _, tokenizer = trained
    folder = export_checkpoint(checkpoint, tmp_path / "model", str(tokenizer))
    with pytest.raises(UnlearunError, match="exists already and is not empty"):
        export_checkpoint(checkpoint, folder, str(tokenizer))


def test_checkpoint_says_what_an_export_needs_in_plain_values(trained):
    """And holds nothing but tensors and plain values, or the safe loader would refuse it."""
    stored = read_checkpoint(trained[0])
    facts = stored[CHECKPOINT_KEY]
    assert json.loads(json.dumps(facts)) == facts
    assert facts["method"] == "SimNPO"
    assert facts["model_config"]["model_type"] == trained[1].config.model_type
    assert {f"policy.model.{name}" for name in trained[1].state_dict()} == set(stored["state_dict"])


def test_missing_checkpoint(tmp_path):
    with pytest.raises(UnlearunError, match=r"there is no checkpoint .*last\.ckpt; look into RUN/checkpoints"):
        export_checkpoint(tmp_path / "last.ckpt", tmp_path / "model")
    with pytest.raises(UnlearunError, match="there is no checkpoint"):
        export_checkpoint(tmp_path, tmp_path / "model")


def test_checkpoint_of_shares(tmp_path):
    (tmp_path / "epoch=0-step=1.ckpt").mkdir()
    with pytest.raises(UnlearunError, match="each process has its share: a run can go on from it"):
        export_checkpoint(tmp_path / "epoch=0-step=1.ckpt", tmp_path / "model")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 cut off"])
def test_file_that_is_no_checkpoint(tmp_path, content):
    (tmp_path / "last.ckpt").write_bytes(content)
    with pytest.raises(UnlearunError, match="cannot be read as a checkpoint"):
        export_checkpoint(tmp_path / "last.ckpt", tmp_path / "model")


class Code:
    """What must not be run."""


@pytest.mark.parametrize("content", [{"state_dict": {}}, [1, 2], torch.zeros(2)])
def test_foreign_checkpoint(tmp_path, content):
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(UnlearunError, match="is no checkpoint of an unlearun run"):
        export_checkpoint(tmp_path / "last.ckpt", tmp_path / "model")


def test_checkpoint_with_code_is_not_run(tmp_path):
    torch.save({CHECKPOINT_KEY: Code()}, tmp_path / "last.ckpt")
    with pytest.raises(UnlearunError, match="cannot be read as a checkpoint"):
        export_checkpoint(tmp_path / "last.ckpt", tmp_path / "model")


def test_checkpoint_that_does_not_fit_its_config(trained, tmp_path):
    """A tensor too many, one too few, and one of another shape."""
    checkpoint, _, tokenizer = trained
    stored = torch.load(checkpoint, weights_only=True)
    weights = stored["state_dict"]
    name = next(name for name in weights if name.endswith(("gate_proj.weight", "c_fc.weight")))
    changes = [
        {**weights, "policy.model.extra": torch.zeros(1)},
        {key: value for key, value in weights.items() if key != name},
        {**weights, name: weights[name][:-1]},
    ]
    for change in changes:
        torch.save({**stored, "state_dict": change}, tmp_path / "last.ckpt")
        with pytest.raises(UnlearunError, match=r"does not fit a .* model; was it written by this version"):
            export_checkpoint(tmp_path / "last.ckpt", tmp_path / "model", str(tokenizer))
        assert not (tmp_path / "model").exists()
