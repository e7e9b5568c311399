"""The Python door, and that it is the same house as the command."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from conftest import FORGET, RETAIN, make_llama, make_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from unlearun import Unlearning, UnlearunError
from unlearun.__main__ import main
from unlearun.shipped import ASSETS

README = Path(__file__).parent.parent / "README.md"


@pytest.fixture
def unlearner(tmp_path):
    made = Unlearning("simnpo", make_llama(), tokenizer=make_tokenizer(), output_dir=tmp_path / "outputs")
    made.load_data(FORGET, RETAIN, max_new_tokens=4)
    return made


def test_the_snippet_of_the_readme_runs_on_pocket(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("forget.json", "retain.json"):
        rows = json.loads((ASSETS / "pocket" / name).read_text(encoding="utf-8"))
        (tmp_path / name).write_text(json.dumps(rows[:20]))
    snippet = next(code for code in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if "gpt2" in code)
    names: dict = {}
    assert "learning_rate=1e-5" in snippet
    # so small a model takes larger steps
    snippet = snippet.replace('"gpt2"', '"pocket"').replace("learning_rate=1e-5", "learning_rate=5e-4")
    exec(compile(snippet, "README.md", "exec"), names)
    assert set(names["results"]) >= {"perplexity", "retain/perplexity", "forget_quality", "model_utility"}
    assert names["results"]["perplexity"] > 1.1
    model = AutoModelForCausalLM.from_pretrained("final_model")
    ids = model.generate(torch.tensor([[5, 6]]), max_new_tokens=2)
    assert AutoTokenizer.from_pretrained("final_model").decode(ids[0])
    assert (tmp_path / "outputs" / "simnpo" / "1" / "config.yaml").is_file()


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("grad_ascent", {}),
        ("grad_diff", {"gamma": 2.0, "alpha": 1.0, "retain_loss_type": "KL"}),
        ("npo", {"beta": 0.5}),
        ("dpo", {"beta": 0.5}),
        ("rmu", {"steering_coeff": 1.5, "target_layer": 1, "adaptive": True}),
        ("simnpo", {"delta": 0.5, "beta": 2.0}),
    ],
)
def test_every_method_by_name(method, arguments, tmp_path):
    unlearner = Unlearning(method, make_llama(), tokenizer=make_tokenizer(), output_dir=tmp_path, **arguments)
    unlearner.load_data(FORGET, RETAIN, max_length=64, max_new_tokens=4)
    folder = unlearner.run(num_epochs=1, gradient_accumulation_steps=2, batch_size=2, max_steps=1)
    assert (folder / "model" / "config.json").is_file()


def test_evaluate_works_before_run_and_leaves_nothing_behind(unlearner, tmp_path):
    results = unlearner.evaluate(metrics=["perplexity"])
    assert set(results) == {"perplexity", "retain/perplexity"}
    assert not (tmp_path / "outputs").exists()
    assert re.search(r"retain/perplexity +\d+\.\d+ +\d+\.\d+ to \d+\.\d+ +lower", str(results))


def test_both_doors_give_the_same_numbers(tmp_path, monkeypatch, files):
    monkeypatch.chdir(tmp_path)
    make_llama(layers=4).save_pretrained(tmp_path / "tiny")
    make_tokenizer().save_pretrained(tmp_path / "tiny")
    forget, retain = map(str, files)
    unlearner = Unlearning("rmu", str(tmp_path / "tiny"), output_dir="python", steering_coeff=20.0)
    unlearner.load_data(forget, retain, batch_size=2, max_eval_rows=None)
    folder = unlearner.run(learning_rate=0.01, num_epochs=2)
    # The config that the run has left runs it again from the command.
    assert main(["fit", "--config", str(folder / "config.yaml"), "--output_dir", "command"]) == 0
    python, command = (
        json.loads((Path(root) / "rmu" / "1" / "eval" / "step=4.json").read_text())["summary"]
        for root in ("python", "command")
    )
    assert python == command
    rerun = yaml.safe_load(Path("command/rmu/1/config.yaml").read_text())
    assert rerun["data"]["max_eval_rows"] is None  # and not the default of 400


def test_the_config_names_what_it_cannot_hold(unlearner):
    folder = unlearner.run(num_epochs=1)
    text = (folder / "config.yaml").read_text()
    assert yaml.safe_load(text)["model"]["init_args"]["model"] == "<object LlamaForCausalLM>"
    assert "once a name stands in place" in text
    assert yaml.safe_load(text)["trainer"]["max_epochs"] == 1
    assert yaml.safe_load(text)["data"]["batch_size"] == 8
    assert yaml.safe_load(text)["optimizer"]["init_args"]["lr"] == 1e-5


def test_save_and_load(unlearner, tmp_path):
    unlearner.run(num_epochs=1, learning_rate=0.01)
    saved = unlearner.evaluate()
    unlearner.save_model(tmp_path / "saved")
    other = Unlearning("simnpo", make_llama(seed=5), tokenizer=make_tokenizer(), output_dir=tmp_path / "outputs")
    other.load_data(FORGET, RETAIN, max_new_tokens=4)
    assert other.evaluate() != saved
    other.load_model(tmp_path / "saved")
    assert other.evaluate() == pytest.approx(saved)
    assert not other.model.training


def test_a_learning_rate_outlives_a_change_of_model(unlearner, tmp_path):
    unlearner.run(num_epochs=1, learning_rate=0.01)
    unlearner.save_model(tmp_path / "saved")
    unlearner.load_model(tmp_path / "saved")
    assert unlearner.method.optimizer["init_args"]["lr"] == 0.01


def test_mistakes_are_explained(unlearner, tmp_path):
    with pytest.raises(UnlearunError, match="Did you mean 'graddiff'"):
        Unlearning("grad_dif", "pocket")
    with pytest.raises(UnlearunError, match="Did you mean 'beta'"):
        Unlearning("simnpo", "pocket", betta=2.0)
    with pytest.raises(UnlearunError, match="has no argument 'alpha'"):
        Unlearning("grad_ascent", "pocket", alpha=2.0)
    with pytest.raises(UnlearunError, match="load_data"):
        Unlearning("simnpo", "pocket").run()
    with pytest.raises(UnlearunError, match="Did you mean 'max_length'"):
        unlearner.load_data(FORGET, RETAIN, max_lenght=3)
    with pytest.raises(UnlearunError, match="Did you mean 'max_steps'"):
        unlearner.run(max_step=3)
    with pytest.raises(UnlearunError, match="Did you mean 'perplexity'"):
        unlearner.evaluate(metrics=["perplexitty"])
    with pytest.raises(UnlearunError, match="there is no file"):
        unlearner.load_data(str(tmp_path / "nowhere.json"))
