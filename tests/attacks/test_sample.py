"""Sampling: the worst of several answers, and none of it where nothing is drawn."""

from __future__ import annotations

import pytest

from unlearun.attacks import Sample
from unlearun.attacks.sample import worst
from unlearun.errors import UnlearunError
from unlearun.records import Evaluation


def test_close_to_zero_degrees_it_is_greedy(victim, target):
    for model in (victim, target):
        outcome = Sample([1e-4], samples=1).run(model)
        (found,) = outcome.variants.values()
        for key, row in found.examples["forget"].items():
            greedy = model.unlearned.examples["forget"][key]
            assert row["generation"] == greedy["generation"]
            assert row["rougeL_recall"] == greedy["rougeL_recall"]
            assert row["verbatim_memorization"] == greedy["verbatim_memorization"]


def test_samples_differ_and_the_seed_brings_them_back(victim):
    once, again = (Sample([1.0], samples=2).run(victim).variants["2 samples at 1"] for _ in range(2))
    assert once.examples == again.examples
    one = Sample([1.0], samples=1).run(victim).variants["1 samples at 1"]
    assert one.examples != once.examples
    for key, row in once.examples["forget"].items():
        assert row["rougeL_recall"] >= one.examples["forget"][key]["rougeL_recall"]


def test_of_each_row_the_worst_counts():
    texts = ["near", "far"]
    drawn = [
        Evaluation(0, examples={"forget": {"0": {"generation": text, "rougeL_recall": value, "rouge1_f1": 1 - value}}})
        for text, value in zip(texts, (0.9, 0.2), strict=True)
    ]
    found = worst(drawn, "rougeL_recall").examples["forget"]["0"]
    assert found == {"generation": "near", "rougeL_recall": 0.9, "rouge1_f1": pytest.approx(0.8)}


def test_wrong_arguments_are_explained():
    with pytest.raises(UnlearunError, match="a temperature is 0; it must be above 0"):
        Sample([0])
    with pytest.raises(UnlearunError, match="samples is 0; it must be a number of at least 1"):
        Sample(samples=0)
