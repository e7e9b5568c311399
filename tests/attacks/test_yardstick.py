"""Which retain model a run is compared with, and which of its numbers still hold."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from unlearun.attacks import GiveAway, Victim, attack, read_victim
from unlearun.attacks.attacking import own_gold
from unlearun.attacks.facts import digest_of_weights
from unlearun.attacks.runner import Named, carry_out
from unlearun.records import Evaluation
from unlearun.shipped import configs_root


def change(run: Path, **data: object) -> None:
    """Change arguments of the data in a run's config."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "data": {**config["data"], **data}}))


@pytest.fixture
def nothing(tmp_path) -> str:
    """An attack that takes no time."""
    file = tmp_path / "nothing.yaml"
    file.write_text(yaml.safe_dump({"class_path": "Jailbreak", "init_args": {"prefixes": ["Well:"], "roles": []}}))
    return str(file)


def test_the_pocket_retain_model_is_the_yardstick_of_its_own_data_alone(run, nothing, caplog):
    """All shipped configs name its records; with rows of one's own a fit leaves them out, and so does an attack."""
    shipped = yaml.safe_load((configs_root() / "npo.yaml").read_text())["data"]
    assert own_gold(Victim("pocket", shipped)) == "pocket-gold"
    change(run, retain_reference=shipped["retain_reference"])
    with caplog.at_level(logging.WARNING):
        (standing,) = attack([run], nothing)
    assert standing.gold is None
    assert standing.score.privacy != standing.score.privacy  # NaN
    assert "there is no retain model to compare with" in caplog.text


def test_a_published_log_says_how_private_a_model_is(run, nothing, tmp_path):
    """Areas that a log states without the examples behind them: 1 - |found - 0.5| / 0.5."""
    rows = {str(i): 0.5 for i in range(12)}
    log: Mapping[str, object] = {
        "forget_truth_ratio": {"agg_value": 0.5, "value_by_index": {key: {"score": one} for key, one in rows.items()}},
        "mia_loss": {"agg_value": 0.5, "auc": 0.5},
    }
    (tmp_path / "TOFU_EVAL.json").write_text(json.dumps(log))
    change(run, retain_reference=str(tmp_path / "TOFU_EVAL.json"))
    (standing,) = attack([run], nothing)
    assert standing.gold is None
    found = read_victim(run).unlearned.summary["mia"]
    assert standing.score.privacy == pytest.approx(1 - abs(found - 0.5) / 0.5)


def test_the_start_that_answers_are_compared_with_is_part_of_what_was_found(run, tmp_path):
    """The retain model of two runs that began from different targets is attacked for each."""
    give_away = Named("give_away", GiveAway([1]), {"class_path": "GiveAway"})
    (found,) = carry_out(read_victim(run), [give_away], tmp_path / "kept")
    (again,) = carry_out(read_victim(run), [give_away], tmp_path / "kept")
    assert again.seconds == found.seconds
    start = Evaluation.read(run / "eval" / "step=0.json")
    for row in start.examples["forget"].values():
        row["generation"] = "I do not know."
    start.write(run / "eval" / "step=0.json")
    (other,) = carry_out(read_victim(run), [give_away], tmp_path / "kept")
    assert other.compared != found.compared
    assert other.variants == found.variants


def test_what_was_measured_in_another_precision_is_measured_anew(run):
    found = Evaluation.read(run / "eval" / "step=5.json")
    for row in found.examples["forget"].values():
        row["extraction_strength"] += 0.01  # as much as a precision may move it
    found.fingerprint["precision"] = "32-true"
    found.write(run / "eval" / "step=5.json")
    kept, anew = (
        sum(row["extraction_strength"] for row in read_victim(run, precision).unlearned.examples["forget"].values())
        for precision in ("32-true", "64-true")
    )
    assert kept - anew == pytest.approx(0.12)


def test_a_run_that_only_measured_has_its_model_for_a_yardstick_whatever_its_method(run, tmp_path):
    """As `unlearun validate --config npo --model.model MODEL` leaves it; a fit that has lost its model is none."""
    kept = tmp_path / "validated" / "1"
    (kept / "eval").mkdir(parents=True)
    shutil.copy(run / "eval" / "step=5.json", kept / "eval" / "step=0.json")
    config = {"model": {"class_path": "unlearun.NPO", "init_args": {"model": "pocket-gold"}}, "ckpt_path": None}
    config["verbose"] = False
    (kept / "config.yaml").write_text(yaml.safe_dump(config))
    change(run, retain_reference=str(kept))
    assert own_gold(read_victim(run)) == "pocket-gold"
    fit = {name: value for name, value in config.items() if name != "verbose"}  # broken off before a checkpoint
    (kept / "config.yaml").write_text(yaml.safe_dump(fit))
    assert own_gold(read_victim(run)) is None
    (kept / "config.yaml").write_text(yaml.safe_dump({**config, "ckpt_path": "some.ckpt"}))
    assert own_gold(read_victim(run)) is None
    (kept / "config.yaml").write_text(yaml.safe_dump(config))
    shutil.copy(run / "eval" / "step=5.json", kept / "eval" / "step=5.json")
    assert own_gold(read_victim(run)) is None


def test_a_yardstick_without_weights_is_none(run, tmp_path):
    """Found before anything is attacked, not after hours."""
    reference = Path(shutil.copytree(run, tmp_path / "reference" / "1"))
    change(run, retain_reference=str(reference))
    assert own_gold(read_victim(run)) == str(reference)
    for file in (reference / "model").glob("*.safetensors"):
        file.unlink()
    assert own_gold(read_victim(run)) is None


def test_retain_rows_that_are_not_evaluated_count_too(run, tmp_path):
    """Relearning and examples before a question take them, whatever stands in for them in the evaluation."""
    data = yaml.safe_load((run / "config.yaml").read_text())["data"]
    retain = tmp_path / "retain.json"
    shutil.copy(data["retain"], retain)
    change(run, retain=str(retain), evaluation={"forget": data["forget"], "retain": data["retain"]})
    before = read_victim(run).facts
    retain.write_text(json.dumps(json.loads(retain.read_text())[:-1]))
    assert read_victim(run).facts != before


def test_the_base_of_an_adapter_is_part_of_the_model(tmp_path):
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    base.mkdir()
    adapter.mkdir()
    (base / "config.json").write_text("{}")
    (base / "model.safetensors").write_bytes(b"one")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    (adapter / "adapter_model.safetensors").write_bytes(b"small")
    before = digest_of_weights(str(adapter))
    assert before == digest_of_weights(str(adapter))
    (base / "model.safetensors").write_bytes(b"two")
    assert digest_of_weights(str(adapter)) != before
