from __future__ import annotations

import json

import pytest

from unlearun.__main__ import main
from unlearun.methods import METHODS
from unlearun.methods.catalogue import describe


@pytest.mark.parametrize("cls", METHODS)
def test_every_method_says_what_it_does_and_where_it_comes_from(cls):
    entry = describe(cls)
    assert 20 < len(entry.does) < 120
    assert entry.source.count('"') == 2
    assert entry.cost


def test_needs_are_those_of_the_classes():
    found = {cls.__name__: describe(cls) for cls in METHODS}
    assert {name for name, entry in found.items() if entry.reference == "none"} == {
        *("SimNPO", "GradDiff", "WGA", "SatImp", "CEU", "PDU", "IdkNLL", "GradAscent", "FineTune")
    }
    assert {name for name, entry in found.items() if not entry.retain} == {"GradAscent", "TaskVector"}
    assert {name for name, entry in found.items() if entry.alternates != "none"} == {"DPO", "AltPO", "IdkDPO", "IdkNLL"}
    assert found["AltPO"].cost == "alternates + forget + retain"


def test_the_command_lists_all_or_some_for_people_and_programs(capsys):
    assert main(["methods"]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n{cls.__name__}\n" in f"\n{printed}" for cls in METHODS)
    assert max(map(len, printed.splitlines())) <= 120
    assert main(["methods", "rmu", "task_vector", "--json"]) == 0
    assert [entry["name"] for entry in json.loads(capsys.readouterr().out)] == ["RMU", "TaskVector"]


def test_a_misspelt_method(capsys):
    assert main(["methods", "simnop"]) == 2
    assert "Did you mean 'simnpo'?" in capsys.readouterr().err
