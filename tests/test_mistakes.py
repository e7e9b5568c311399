"""What users get wrong: for each mistake exit status 2 and a message that helps, no traceback, no half-written run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from conftest import FORGET, RETAIN
from huggingface_hub import constants
from mistakes import (
    Mistake,
    Place,
    adapter_of,
    change,
    cut,
    fewer_tokens,
    make_model,
    own_code,
    pickled,
    put,
    wider,
    without_pad_and_eos,
    without_tokenizer,
)

from unlearun.__main__ import main

CHANGED = [{**FORGET[0], "answer": "In Rome, far from the sea."}, *FORGET[1:]]
NINES = "9" * 5000
HOLDOUT = ["--data.holdout", "retain.jsonl"]

DATA = [
    Mistake(
        "a file that is not there",
        lambda p: p.fit("--data.forget", "forgett.json"),
        ("the forget set: there is no file forgett.json", "Did you mean 'forget.json'?"),
    ),
    Mistake("an empty file", lambda p: p.forget(""), ("rows.json is empty", "expected a list of objects")),
    Mistake("a list without rows", lambda p: p.forget("[]"), ("rows.json holds no rows; expected at least one",)),
    Mistake(
        "a broken file",
        lambda p: p.forget('[{"question": "a", "answer": "b"},\n{"question": '),
        ("rows.json: 1 problem", "line 2: broken JSON (Expecting value)"),
    ),
    Mistake(
        "other keys",
        lambda p: p.forget('{"prompt": "a", "answr": "b"}'),
        ("key 'answer' is missing (found: prompt, answr). Did you mean 'answr'?", "name another with answer_key"),
    ),
    Mistake(
        "a number for a text",
        lambda p: p.forget('{"question": "a", "answer": 3}'),
        ("line 1: key 'answer' is int (3); expected text, in quotes",),
    ),
    Mistake(
        "a blank answer",
        lambda p: p.forget('{"question": "a", "answer": " "}'),
        ("line 1: key 'answer' is empty; write some text, or remove the row",),
    ),
    Mistake(
        "another encoding",
        lambda p: p.forget('{"question": "Où ?", "answer": "À Rome"}'.encode("latin-1")),
        ("rows.json, line 1: not UTF-8 text; save the file as UTF-8",),
    ),
    Mistake("UTF-16", lambda p: p.forget(json.dumps(FORGET).encode("utf-16")), ("line 1: not UTF-8 text",)),
    Mistake("a binary file", lambda p: p.forget(bytes(range(256)) * 9), ("not UTF-8 text; save the file as UTF-8",)),
    Mistake(
        "a table of commas",
        lambda p: p.forget("question,answer\na,b\n", name="rows.csv"),
        ("rows.csv: 2 problems", "expected a list of objects, or one object a line"),
    ),
    Mistake(
        "a huge line",
        lambda p: p.forget(f'{{"question": "{"x" * 200_000}", "answer": "b"}}', name="rows.jsonl"),
        ("line 1: the prompt has 200018 tokens", "shorten the question, or raise max_length (now 512)"),
    ),
    Mistake(
        "a long answer where none may be cut",
        lambda p: p.forget(f'{{"question": "a", "answer": "{"x" * 600}"}}', "--data.truncation", "error"),
        ("tokens, max_length is 512; raise it, or cut such answers with truncation: answer",),
    ),
    Mistake("deep nesting", lambda p: p.forget("[" * 100_000), ("line 1: broken JSON (nested too deep)",)),
    Mistake(
        "a number of 5,000 digits",
        lambda p: p.forget(f'{{"question": "a", "answer": {NINES}}}'),
        ("line 1: broken JSON (a number of too many digits)",),
    ),
    Mistake(
        "half a surrogate pair",
        lambda p: p.forget('{"question": "a", "answer": "\\ud800"}'),
        ("key 'answer' holds half a surrogate pair", "mend the text"),
    ),
    Mistake("texts for objects", lambda p: p.rows_of(["a", "b"]), ("expected an object with keys, found 'a'",)),
    Mistake(
        "a folder for a file",
        lambda p: p.fit("--data.forget", "tiny"),
        ("the forget set: tiny is a folder; name a .json or .jsonl file in it",),
    ),
    Mistake(
        "a misspelt key of a source",
        lambda p: p.fit("--data.forget", '{"path": "forget.json", "spilt": "a"}'),
        ("unknown key 'spilt'. Did you mean 'split'?",),
    ),
    Mistake(
        "a split that no row has",
        lambda p: p.fit("--data.forget", '{"path": "forget.json", "split": "a"}'),
        ("no row of forget.json has split 'a'; found no row with a key 'split'",),
    ),
    Mistake(
        "a dataset that is nowhere",
        lambda p: p.fit("--data.forget", "nobody/no-such-data"),
        ("'nobody/no-such-data' is no file here", "check the id, name, split and the network"),
    ),
    Mistake(
        "duplicate rows",
        lambda p: p.fit("--data.forget", p.rows([*FORGET, FORGET[0]]), "--data.duplicates", "error"),
        ("forget: 1 of 5 rows stand there before already (first: rows.json, line 1, row 0)", "remove them"),
    ),
    Mistake(
        "rows in both sets",
        lambda p: p.fit("--data.forget", p.rows([*FORGET, RETAIN[0]]), "--data.overlap", "error"),
        ("1 row stands in both forget and retain (first: rows.json, line 1, row 4)", "remove them from one"),
    ),
    Mistake(
        "no holdout for what needs one",
        lambda p: p.fit("--data.final_metrics", "[mia]"),
        ("mia compares the forget set with rows that the model never saw; add --data.holdout FILE",),
    ),
    Mistake(
        "a holdout file that is not there",
        lambda p: p.fit("--data.holdout", "never.json"),
        ("the holdout set: there is no file never.json",),
    ),
    Mistake("no retain set", lambda p: p.fit("--data.retain", "null"), ("add --data.retain FILE",)),
    Mistake(
        "no such alternate answers",
        lambda p: p.fit("--data.alternate_key", "other", config="dpo"),
        ("the forget set: 4 problems", "key 'other' is missing", "name another with alternate_key"),
    ),
    Mistake(
        "plain text for a method that asks questions",
        lambda p: p.fit("--data.forget", p.rows([{"text": "Anna lives in Oslo."}]), config="dpo"),
        ("rows.json, line 1: plain text has no alternate answer; this method needs questions",),
    ),
    Mistake(
        "a set named after a file elsewhere",
        lambda p: p.fit("--data.utility", '{"../../x": "retain.jsonl"}'),
        ("a set cannot be called '../../x', for files are named after it",),
    ),
]

MODEL = [
    Mistake(
        "a folder that is not there",
        lambda p: p.fit("--model.model", "./tinny"),
        ("there is no model at ./tinny. Did you mean 'tiny'?",),
    ),
    Mistake(
        "a name that is nowhere",
        lambda p: p.fit("--model.model", "nobody/tinny"),
        ("'nobody/tinny' could not be loaded (it is no folder here and not in the hub's cache", "expected the hub id"),
    ),
    Mistake(
        "a folder without a model",
        lambda p: p.model(lambda folder: [file.unlink() for file in folder.iterdir()]),
        ("the folder bad holds no tokenizer_config.json",),
    ),
    Mistake(
        "no causal language model",
        lambda p: p.model(put("config.json", '{"model_type": "t5"}')),
        ("the model of 'bad' could not be loaded (T5 is no causal language model)", "expected the hub id"),
    ),
    Mistake(
        "an architecture that nobody knows",
        lambda p: p.model(change("config.json", model_type="foo")),
        ("the model of 'bad' could not be loaded", "`foo`"),
    ),
    Mistake(
        "a broken config.json",
        lambda p: p.model(put("config.json", "{not json")),
        ("of 'bad' could not be loaded", "is not a valid JSON file"),
    ),
    Mistake(
        "no tokenizer",
        lambda p: p.model(without_tokenizer),
        ("the folder bad holds no tokenizer; name one that does with --model.tokenizer",),
    ),
    Mistake(
        "a broken tokenizer",
        lambda p: p.model(put("tokenizer.json", "{}")),
        ("the tokenizer of 'bad' could not be loaded", "another tokenizer is named with --model.tokenizer"),
    ),
    Mistake(
        "no pad and no eos",
        lambda p: p.model(without_pad_and_eos),
        ("the tokenizer bad has no eos token", "set eos_token in its tokenizer_config.json"),
    ),
    Mistake(
        "another model's tokenizer",
        lambda p: p.model(fewer_tokens),
        ("the tokenizer made token 75, but the model has tokens 0 to 59", "--model.tokenizer"),
    ),
    Mistake(
        "a layer that is not there",
        lambda p: p.fit("--model.target_layer", "4", config="rmu"),
        ("target layer is 4, but the model has layers 0 to 3",),
    ),
    Mistake(
        "a layer below the first",
        lambda p: p.fit("--model.target_layer", "[0,-1]", config="rmu"),
        ("target layer is -1, but the model has layers 0 to 3",),
    ),
    Mistake(
        "too few positions",
        lambda p: p.model(change("config.json", max_position_embeddings=8)),
        ("the longest row has 62 tokens, but the model has 8 positions; set max_length to 8 or less",),
    ),
    Mistake(
        "safetensors cut at the end",
        lambda p: p.model(cut("model.safetensors", -1000)),
        ("could not be loaded (SafetensorError", "its weights are damaged or not whole: copy or download them again"),
    ),
    Mistake(
        "safetensors cut in the header",
        lambda p: p.model(cut("model.safetensors", 100)),
        ("could not be loaded (SafetensorError", "damaged or not whole"),
    ),
    Mistake(
        "a pointer where the weights should be",
        lambda p: p.model(put("model.safetensors", "version https://git-lfs.github.com/spec/v1\nsize 123\n")),
        ("could not be loaded (SafetensorError", "damaged or not whole"),
    ),
    Mistake(
        "half of the weights",
        lambda p: p.model(change("config.json", num_hidden_layers=8)),
        ("36 of 75 weights of bad are not in its files", "it is not whole"),
    ),
    Mistake(
        "weights of another size",
        lambda p: p.model(change("config.json", intermediate_size=48)),
        ("12 weights of bad have another shape than its config.json says",),
    ),
    Mistake(
        "a pickle",
        lambda p: p.model(pickled),
        ("the weights of bad are a pickle (pytorch_model.bin)", "save_pretrained(NEW)"),
    ),
    Mistake(
        "code that nobody vouched for",
        lambda p: p.model(own_code),
        ("it brings code of its own, which is not run unless you say so", "--model.trust_remote_code true"),
    ),
    Mistake(
        "an adapter whose model is gone",
        lambda p: p.model(adapter_of("/gone/base")),
        ("bad is an adapter of '/gone/base', which is needed too: there is no model at /gone/base",),
    ),
    Mistake(
        "a file of weights",
        lambda p: p.file("model.safetensors", b""),
        ("model.safetensors is a file, but not a .gguf file; name a folder",),
    ),
    Mistake(
        "a checkpoint",
        lambda p: p.file("x.ckpt", b""),
        ("x.ckpt is a checkpoint; turn it into a folder first: unlearun export x.ckpt DIR",),
    ),
    Mistake(
        "a GGUF file that is not there",
        lambda p: p.fit("--model.model", "small.gguf"),
        ("there is no model at small.gguf",),
    ),
    Mistake(
        "an encrypted GGUF file",
        lambda p: p.file("small.gguf", bytes(range(7, 250))),
        ("small.gguf begins with b'", "it is encrypted, damaged or no GGUF file"),
    ),
    Mistake(
        "a corrupt GGUF file",
        lambda p: p.file("small.gguf", b"GGUF\3\0\0\0\1\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0" + bytes(range(200))),
        ("'small.gguf' could not be loaded", "the file is damaged", "download it again"),
    ),
]

ARGUMENTS = [
    Mistake("a misspelt command", lambda p: ["fitt"], ("there is no command 'fitt'. Did you mean 'fit'?",)),
    Mistake("nothing at all", lambda p: ["fit"], ("missing: --model", "start from a config")),
    Mistake("no model", lambda p: ["fit", "--model", "RMU", "--data.forget", "x"], ("missing: --model.model",)),
    Mistake(
        "a misspelt method",
        lambda p: p.fit("--model", "RMUU"),
        ("there is no class 'RMUU' for model. Did you mean 'RMU'?", "Known: AltPO"),
    ),
    Mistake(
        "a misspelt option",
        lambda p: p.fit("--model.betta", "2"),
        ("there is no option 'model.betta'. Did you mean 'model.beta'?",),
    ),
    Mistake(
        "a misspelt option in an option",
        lambda p: p.fit("--model.lora.rr", "8"),
        ("there is no option 'model.lora.rr'. Did you mean 'model.lora.r'?",),
    ),
    Mistake(
        "an option in a number",
        lambda p: p.fit("--model.gamma.x", "8"),
        ("there is no option 'model.gamma.x'. Did you mean 'model.gamma'?",),
    ),
    Mistake(
        "a misspelt option of the Trainer",
        lambda p: p.fit("--trainer.max_epoch", "2"),
        ("there is no option 'trainer.max_epoch'. Did you mean 'trainer.max_epochs'?",),
    ),
    Mistake(
        "one dash",
        lambda p: p.fit("-model.gamma", "2"),
        ("there is no option '-model.gamma'; options begin with two dashes: --model.gamma",),
    ),
    Mistake("an option without a value", lambda p: p.fit("--model.gamma"), ("has no value; write it behind",)),
    Mistake(
        "a number for settings",
        lambda p: p.fit("--model.lora", "8"),
        ("model.lora is '8'; expected settings by name, such as --model.lora.r 16",),
    ),
    Mistake("a word for a number", lambda p: p.fit("--model.gamma", "x"), ("model.gamma is 'x'; expected float",)),
    Mistake("a negative weight", lambda p: p.fit("--model.gamma", "-1"), ("gamma is -1.0; it must be a number of",)),
    Mistake("a batch of none", lambda p: p.fit("--data.batch_size", "0"), ("batch_size is 0; it must be a number",)),
    Mistake("a negative learning rate", lambda p: p.fit("--optimizer.lr", "-1"), ("Invalid learning rate: -1.0",)),
    Mistake(
        "an optimizer that nobody knows",
        lambda p: p.fit("--optimizer", "AdamX"),
        ("there is no class 'AdamX' for optimizer. Did you mean 'Adam'?", "AdamW"),
    ),
    Mistake(
        "half a scheduler",
        lambda p: p.fit("--lr_scheduler", "CosineAnnealingLR"),
        ("missing: --lr_scheduler.T_max",),
    ),
    Mistake(
        "no accumulation at all",
        lambda p: p.fit("--trainer.accumulate_grad_batches", "0"),
        ("trainer.accumulate_grad_batches is 0; it must be a number of at least 1",),
    ),
    Mistake("negative epochs", lambda p: p.fit("--trainer.max_epochs", "-3"), ("`max_epochs` must be", "-3")),
    Mistake("a negative seed", lambda p: p.fit("--seed_everything", "-1"), ("the seed is -1; it must be a whole",)),
    Mistake(
        "a metric that nobody knows",
        lambda p: p.fit("--data.final_metrics", "[perplexitty]"),
        ("there is no metric 'perplexitty'. Did you mean 'perplexity'?",),
    ),
    Mistake(
        "a template without a question",
        lambda p: p.fit("--data.prompt_template", "Q: {prompt}"),
        ("it must hold {question}",),
    ),
    Mistake(
        "4 bits without adapters",
        lambda p: p.fit("--model.load_in_4bit", "true"),
        ("load_in_4bit is for adapters", "add lora (--model.lora.r 16)"),
    ),
    Mistake(
        "surgery without a retain term",
        lambda p: p.fit("--model.gradient_surgery", "true", config="grad_ascent"),
        ("gradient_surgery weighs the forget gradient against that of retain", "leave it out"),
    ),
    Mistake(
        "the same batches, accumulated",
        lambda p: p.fit("--trainer.overfit_batches", "1", "--trainer.accumulate_grad_batches", "2"),
        ("overfit_batches repeats whole batches; use it on one device without accumulation",),
    ),
    Mistake("a config that is not there", lambda p: ["fit", "--config", "simnpoo"], ("Did you mean 'simnpo'?",)),
    Mistake("a broken config", lambda p: p.config("model: [a\ndata: :"), ("mine.yaml, line 2: broken YAML",)),
    Mistake("an empty config", lambda p: p.config(""), ("config mine.yaml holds nothing; expected options by name",)),
    Mistake("a binary config", lambda p: p.config(bytes(range(256))), ("mine.yaml is not UTF-8 text",)),
    Mistake(
        "a config that calls Python",
        lambda p: p.config("model: !!python/object/apply:os.system ['touch ran']\n"),
        ("mine.yaml, line 1: broken YAML (could not determine a constructor",),
    ),
    Mistake("nothing to score", lambda p: ["score"], ("arguments are required: RECORDS (unlearun score --help)",)),
    Mistake("rows to score", lambda p: ["score", "forget.json"], ("forget.json holds no records of a known kind",)),
    Mistake(
        "a run to validate that is not there",
        lambda p: ["validate", "outputs/rmu/9", "--data.forget", "forget.json"],
        ("there is no model at outputs/rmu/9",),
    ),
    Mistake(
        "a checkpoint that is none",
        lambda p: ["export", p.write("x.ckpt", b"garbage"), "out"],
        ("x.ckpt cannot be read as a checkpoint",),
    ),
    Mistake(
        "a checkpoint that is not there",
        lambda p: p.fit("--ckpt_path", "x.ckpt"),
        ("there is no checkpoint x.ckpt; look into RUN/checkpoints",),
    ),
]

RUN_FOLDER = [
    Mistake(
        "outputs below a file",
        lambda p: p.fit("--output_dir", "forget.json/out"),
        ("cannot make a run folder in forget.json/out/simnpo", "choose another with --output_dir"),
    ),
    Mistake(
        "configs into a folder that has them",
        lambda p: ["configs", os.path.dirname(p.write("mine/simnpo.yaml", ""))],
        ("mine/simnpo.yaml exists already; name an empty folder",),
    ),
]

DEVICES = [
    Mistake(
        "more processes than any CPU serves",
        lambda p: p.fit("--trainer.devices", str(5 * (os.cpu_count() or 1))),
        (f"the CPU has {os.cpu_count()} cores", f"set it to {os.cpu_count()} or less"),
    ),
    Mistake("no devices", lambda p: p.fit("--trainer.devices", "0"), ("the Trainer cannot be set up so", "'0'")),
    Mistake(
        "an accelerator that nobody knows",
        lambda p: p.fit("--trainer.accelerator", "gpuu"),
        ("invalid accelerator name: `accelerator='gpuu'`", "Available names are"),
    ),
    Mistake(
        "a strategy that nobody knows",
        lambda p: p.fit("--trainer.strategy", "ddpp"),
        ("invalid strategy name: `strategy='ddpp'`",),
    ),
    Mistake(
        "more GPUs than there are",
        lambda p: p.fit("--trainer.accelerator", "gpu", "--trainer.devices", "64"),
        ("the Trainer cannot be set up so", "GPU" if not torch.cuda.is_available() else "machine only has"),
    ),
]

REFERENCE = [
    Mistake(
        "a reference that is not there",
        lambda p: p.fit("--model.reference", "./nowhere", config="npo"),
        ("there is no model at ./nowhere",),
    ),
    Mistake(
        "a reference of other tokens",
        lambda p: p.reference(fewer_tokens, "npo"),
        ("the reference bad is another kind of model: it has 60 tokens, the model 76",),
    ),
    Mistake(
        "a reference of another size",
        lambda p: p.reference(wider, "rmu"),
        ("the reference bad is another kind of model: its hidden_size is 64, the model's 32",),
    ),
    Mistake(
        "a cache for a loss that reads hidden states",
        lambda p: p.fit("--model.reference_way", "cache", config="rmu"),
        ("reference_way is 'cache'", "the loss of RMU reads hidden: use auto"),
    ),
    Mistake(
        "records that are not there",
        lambda p: p.fit("--data.retain_reference", "nowhere"),
        ("nowhere cannot be read",),
    ),
    Mistake(
        "records of other rows and another tokenizer",
        lambda p: p.fit(
            *("--data.retain_reference", "pocket/gold_records.json", "--data.final_metrics", "[ks_forget_quality]")
        ),
        ("the reference has 40 forget rows, this evaluation 4", "the reference was made with another tokenizer"),
    ),
]

MISTAKES = [*DATA, *MODEL, *ARGUMENTS, *RUN_FOLDER, *DEVICES, *REFERENCE]
NEEDS_GGUF = {"an encrypted GGUF file", "a corrupt GGUF file"}


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("mistakes") / "tiny")


@pytest.fixture
def place(tmp_path, model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # a name that is nowhere is so with a network, too
    return Place(tmp_path, model)


def refused(arguments, capsys) -> str:
    """Run a command that must fail as a mistake does, and return what it says."""
    capsys.readouterr()
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert len(re.findall("^unlearun: error: ", said, re.MULTILINE)) == 1
    return said.partition("unlearun: error: ")[2]


def test_there_are_sixty_and_each_is_another():
    assert len({mistake.name for mistake in MISTAKES}) == len(MISTAKES) >= 60


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.name for mistake in MISTAKES])
def test_a_mistake_ends_in_a_message_and_leaves_nothing_behind(mistake, place, capsys):
    if mistake.name in NEEDS_GGUF and find_spec("gguf") is None:
        pytest.skip("reading GGUF files needs the package gguf")
    arguments = mistake.make(place)
    before = sorted(place.folder.rglob("*"))
    said = refused(arguments, capsys)
    for words in mistake.says:
        assert words in said
    assert sorted(place.folder.rglob("*")) == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(place, capsys):
    (place.folder / "mine").mkdir(mode=0o500)
    said = refused(place.fit("--output_dir", "mine"), capsys)
    assert "cannot make a run folder in mine/simnpo: Permission denied; choose another with --output_dir" in said


@pytest.fixture
def records(place, capsys):
    """The run folder of an evaluation, as a retain reference."""
    assert main(["validate", *place.fit("--output_dir", "kept", *HOLDOUT)[1:]]) == 0
    return "kept/simnpo/1"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (lambda p: ["--data.forget", p.rows(FORGET[:3])], "the reference has 4 forget rows, this evaluation 3"),
        (lambda p: ["--data.forget", p.rows(CHANGED)], "the forget rows of the reference are others"),
        (lambda p: ["--data.max_length", "99"], "the template's max_length is 512 in the reference, 99 here"),
        (lambda p: ["--data.prompt_template", "{question}"], "the template's prompt is 'Question: {question}"),
    ],
    ids=["fewer rows", "a row that has changed since", "another length", "another template"],
)
def test_a_stale_reference(options, says, place, records, capsys):
    """The records fit as long as nothing has changed."""
    arguments = [*HOLDOUT, "--data.retain_reference", records]
    said = refused(place.fit(*arguments, *options(place)), capsys)
    assert "cannot be the retain reference (evaluate the retain model on the same rows in the same way)" in said
    assert says in said
    assert not (place.folder / "outputs").exists()
    assert main(["validate", *place.fit(*arguments)[1:]]) == 0


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_another_models_tokenizer_in_what_only_measures(command, place, capsys):
    said = refused([command, *place.model(fewer_tokens)[1:]], capsys)
    assert "the tokenizer made token 75, but the model has tokens 0 to 59" in said
    assert not (place.folder / "outputs").exists()


def test_the_process_ends_with_the_status(place):
    done = subprocess.run([sys.executable, "-m", "unlearun", "score", "x"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "unlearun: error: x cannot be read: No such file or directory\n"


def test_a_bug_is_no_mistake(place, monkeypatch):
    """What nobody has foreseen keeps its traceback."""

    def break_down(*_):
        raise ValueError("a bug")

    monkeypatch.setattr("unlearun.methods.base.Policy", break_down)
    with pytest.raises(ValueError, match="a bug"):
        main(place.fit())
    assert not (place.folder / "outputs").exists()
