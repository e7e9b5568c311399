"""The TOFU benchmark, end to end, on rows of its shape and on its own files where they lie beside the checkout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tofu_script
from conftest import FORGET, RETAIN, make_llama, make_tokenizer
from transformers import AutoModelForCausalLM

from unlearun.__main__ import main

TOFU = Path(__file__).resolve().parents[2] / "shared" / "data" / "tofu"
NEW_TOKENS = 8
UTILITY = {"retain": "retain_perturbed", **{name: f"{name}_perturbed" for name in ("real_authors", "world_facts")}}


def write(folder, **sets):
    folder.mkdir()
    for name, rows in sets.items():
        (folder / f"{name}.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def perturbed(rows, paraphrased=True):
    """As published: two wrong answers or three a row, and the answer in other words but for real authors and facts."""
    other = [row["answer"] for row in rows]
    made = [
        {**row, "perturbed_answer": [f"{other[i - 1]} Or not.", "None of it.", *([other[i - 2]] if i % 2 else [])]}
        for i, row in enumerate(rows)
    ]
    return [{**row, "paraphrased_answer": f"It is so: {row['answer']}"} for row in made] if paraphrased else made


@pytest.fixture
def small(tmp_path):
    """Rows of one's own in the shape of TOFU's, as plain a text as the tiny model's tokenizer knows."""
    return write(
        tmp_path / "small",
        forget10=FORGET,
        retain90=RETAIN,
        holdout10=[
            {"question": "Who is Kai?", "answer": "A singer."},
            {"question": "Who is Lea?", "answer": "A cook."},
        ],
        forget10_perturbed=perturbed(FORGET),
        retain_perturbed=perturbed(RETAIN[:3]),
        real_authors_perturbed=perturbed(RETAIN[3:5], paraphrased=False),
        world_facts_perturbed=perturbed(RETAIN[4:], paraphrased=False),
    )


@pytest.fixture
def published(tmp_path):
    """The first rows of each of TOFU's files; there is no holdout set among them, so authors of the full set are it."""
    if not TOFU.is_dir():
        pytest.skip("the TOFU files are not beside this checkout")
    names = ("forget10", "retain90", "forget10_perturbed", *UTILITY.values())
    rows = {name: tofu_script.read(TOFU / f"{name}.json")[:6] for name in names}
    return write(tmp_path / "published", **rows, holdout10=tofu_script.read(TOFU / "full.json")[2000:2006])


def run(folder, tmp_path, method, benchmark, *more):
    """Run a method on the benchmark; return the run folder."""
    arguments = ["fit", "--config", method, "--config", f"benchmarks/tofu/{benchmark}", "--data.root", str(folder)]
    arguments += ["--model.model", str(tmp_path / "tiny"), "--output_dir", str(tmp_path / "runs")]
    arguments += ["--data.max_new_tokens", str(NEW_TOKENS), "--data.batch_size", "2", "--trainer.max_epochs", "2"]
    arguments += ["--optimizer.lr", "3e-3", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    assert main([*arguments, *more]) == 0
    (where,) = (tmp_path / "runs" / method.replace("_", "")).iterdir()
    return where


@pytest.mark.parametrize("rows", ["small", "published"])
def test_its_aggregates_are_those_of_a_script_of_its_own(rows, tmp_path, request, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = request.getfixturevalue(rows)
    model = make_llama(layers=3)
    model.config.max_position_embeddings = 1024  # a token a character
    model.save_pretrained(tmp_path / "tiny")
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(tmp_path / "tiny")
    gold = run(folder, tmp_path, "fine_tune", "retain90")
    found = run(folder, tmp_path, "simnpo", "forget10", "--data.retain_reference", str(gold))
    models = [AutoModelForCausalLM.from_pretrained(where / "model") for where in (gold, found)]
    forget = tofu_script.read(folder / "forget10_perturbed.json")
    sets = {name: tofu_script.read(folder / f"{file}.json") for name, file in UTILITY.items()}
    last = max(found.glob("eval/step=*.json"), key=lambda file: int(file.stem.partition("=")[2]))
    summary = json.loads(last.read_text())["summary"]
    expected = [tofu_script.truth_ratios(model, tokenizer, forget) for model in models]
    assert summary["ks_forget_quality"] == pytest.approx(tofu_script.forget_quality(*expected), rel=1e-6)
    utility = tofu_script.model_utility(models[1], tokenizer, sets, NEW_TOKENS)
    assert summary["model_utility"] == pytest.approx(utility, rel=1e-4)
    assert 0 < summary["mia"] < 1
