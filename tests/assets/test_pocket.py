"""What ships with the package is what it should be."""

from __future__ import annotations

import json

import pytest

from unlearun.assets.build_pocket import TRAINED_ON, trained_pairs
from unlearun.assets.measure import measure
from unlearun.assets.people import SEED, make_facts
from unlearun.models import load_model, load_tokenizer
from unlearun.shipped import ASSETS

SIZES = {"forget": 40, "retain": 360, "holdout": 40, "facts": 60}


def rows(name: str) -> list[dict]:
    return json.loads((ASSETS / "pocket" / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def figures():
    found = {}
    for model in ("pocket", "pocket-gold"):
        loaded, tokenizer = load_model(model), load_tokenizer(model)
        found[model] = {name: measure(loaded, tokenizer, rows(name)[:60]) for name in SIZES}
    return found


@pytest.mark.parametrize("name", SIZES)
def test_the_files_are_what_the_generator_makes(name):
    assert rows(name) == [fact.row() for fact in make_facts()[name]]
    assert len(rows(name)) == SIZES[name]
    assert all(len(row["perturbed_answer"]) == 5 for row in rows(name))


def test_every_fact_is_trained_in_four_wordings_and_never_in_its_paraphrase():
    facts = make_facts()
    for name in TRAINED_ON["target"]:
        for fact in facts[name]:
            pairs = trained_pairs([fact], SEED)
            assert len({question for question, _ in pairs}) >= 4
            assert len({answer for _, answer in pairs}) >= 4
            assert fact.row()["paraphrased_answer"] not in {answer for _, answer in pairs}


def test_the_target_knows_everything_but_the_holdout(figures):
    known = figures["pocket"]
    assert all(known[name]["probability"] > 0.9 for name in ("forget", "retain", "facts"))
    assert known["holdout"]["probability"] < 0.1
    assert known["forget"]["wins"] >= 0.8


def test_gold_is_at_chance_on_the_forget_rows(figures):
    gold = figures["pocket-gold"]
    assert gold["forget"]["probability"] < 0.1
    assert gold["forget"]["wins"] < 0.34
    assert gold["retain"]["probability"] > 0.9
    assert gold["retain"]["wins"] >= 0.8


def test_models_and_data_are_small():
    assert sum(file.stat().st_size for file in (ASSETS / "pocket").rglob("*") if file.is_file()) < 10_000_000
