"""The same seed gives the same weights, to the last bit, whatever ran before."""

from __future__ import annotations

import random

import pytest
import torch
from conftest import make_gpt2, make_tokenizer
from mistakes import Place
from safetensors.torch import load_file

from unlearun import Unlearning
from unlearun.__main__ import main
from unlearun.records import Evaluation


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A model with dropout, which draws in every step."""
    monkeypatch.chdir(tmp_path)
    make_gpt2(layers=4, dropout=0.2).save_pretrained(tmp_path / "made")
    make_tokenizer().save_pretrained(tmp_path / "made")
    return Place(tmp_path, tmp_path / "made")


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "options",
    [
        ("npo", "--data.batch_size", "2"),
        ("rmu", "--model.lora.r", "2", "--model.lora.dropout", "0.1"),
        ("idk_dpo", "--trainer.accumulate_grad_batches", "2", "--data.batch_size", "1"),
    ],
    ids=["npo", "rmu with adapters", "idk_dpo"],
)
def test_two_runs_of_a_seed_are_equal_and_those_of_another_are_not(options, place):
    config, *more = options
    arguments = [*place.fit(*more, config=config), "--trainer.max_epochs", "2", "--optimizer.lr", "0.01"]
    runs = []
    for seed in ("7", "7", "8"):
        torch.rand(5)  # what ran before leaves its mark on the generators
        random.random()
        assert main([*arguments, "--seed_everything", seed]) == 0
        runs.append(weights(place.folder / "outputs" / config.replace("_", "") / str(len(runs) + 1)))
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])
    assert not same(runs[0], load_file("tiny/model.safetensors"))


def test_another_seed_is_another_order_of_the_same_rows(place):
    """A model without dropout, all of whose weights are trained, draws nothing else."""
    make_gpt2(layers=4).save_pretrained(place.folder / "made")
    arguments = [*place.fit("--data.batch_size", "2", config="npo"), "--trainer.max_epochs", "2"]
    for seed in ("0", "1", "1"):
        assert main([*arguments, "--seed_everything", seed, "--data.max_eval_rows", "2"]) == 0
    runs = [place.folder / "outputs" / "npo" / str(number) for number in (1, 2, 3)]
    first, second, third = map(weights, runs)
    assert not same(first, second)
    assert same(second, third)
    asked = [
        {row["question"] for row in Evaluation.read(run / "eval" / "step=0.json").examples["forget"].values()}
        for run in runs
    ]
    assert asked[0] == asked[1]


def test_both_doors_of_a_seed_are_equal(place):
    assert main([*place.fit("--seed_everything", "7"), "--optimizer.lr", "0.01"]) == 0
    unlearner = Unlearning("simnpo", "tiny", output_dir="python", seed=7, beta=2.5, delta=1.0, gamma=1.0)
    unlearner.load_data("forget.json", "retain.jsonl", max_new_tokens=4)
    folder = unlearner.run(learning_rate=0.01, num_epochs=1, accelerator="cpu", enable_progress_bar=False)
    command = weights(place.folder / "outputs" / "simnpo" / "1")
    assert same(weights(folder), command)
