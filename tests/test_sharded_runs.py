"""Under FSDP2 in two processes a run measures, answers, saves and goes on as it does in one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sharded_runs
import torch
from conftest import make_llama, make_tokenizer
from processes import in_two_processes
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from unlearun.models import export_checkpoint


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    make_llama(seed=3).save_pretrained(folder / "model")
    make_llama(seed=4).save_pretrained(folder / "other", max_shard_size="20KB")
    return folder, in_two_processes(sharded_runs.all_of, str(folder))


def test_all_metrics_and_answers_are_those_of_one_process(both):
    """Processes have batches with different numbers of answers, generate for different times, and one has a filler."""
    alone, found = sharded_runs.measure(None), [rank["measured"] for rank in both[1]]
    assert len({len(text) for text in alone["answers"].values()}) > 2
    assert {**found[0]["answers"], **found[1]["answers"]} == alone["answers"]
    for rank in found:
        assert rank["summary"] == pytest.approx(alone["summary"], rel=1e-9)
        assert {"mia_grad_norm", "forget_quality", "forget/rouge"} <= rank["summary"].keys()
        assert flat(rank["examples"]) == pytest.approx(flat(alone["examples"]), rel=1e-6)  # norms are float32


@pytest.mark.parametrize(("name", "method", "options"), [("run", "simnpo", {}), ("adapted", "npo", {"lora": {"r": 2}})])
def test_a_run_folder_holds_what_one_process_leaves(both, tmp_path, name, method, options):
    """The model is gathered and written by the first process, adapters merged or alone; so are records and events."""
    folders = {rank[name] for rank in both[1]}
    assert len(folders) == 1
    run, alone = Path(folders.pop()), Path(sharded_runs.unlearn(None, str(tmp_path), method, options))
    names = [sorted(str(file.relative_to(where)) for file in where.rglob("*")) for where in (run, alone)]
    assert [n for n in names[0] if "tfevents" not in n] == [n for n in names[1] if "tfevents" not in n]
    assert len(list(run.glob("events.out.tfevents.*"))) == 1
    for file in alone.glob("eval/*.json"):
        expected, found = (json.loads((where / "eval" / file.name).read_text())["summary"] for where in (alone, run))
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)
    for file in alone.rglob("*.safetensors"):
        expected, found = load_file(file), load_file(run / file.relative_to(alone))
        assert found.keys() == expected.keys()
        for key, weight in expected.items():
            torch.testing.assert_close(found[key], weight, rtol=1e-3, atol=1e-4)
    loaded = AutoModelForCausalLM.from_pretrained(run / "again").state_dict()
    weights = load_file(run / "model" / "model.safetensors")
    assert all(torch.equal(loaded[key], weight) for key, weight in weights.items())


@pytest.mark.parametrize("form", ["file", "shares"])
def test_a_run_goes_on_from_a_checkpoint_of_either_form(both, form):
    for rank in both[1]:
        unbroken, resumed = rank[form]
        assert unbroken.keys() == resumed.keys()
        assert all(torch.equal(resumed[name], weight) for name, weight in unbroken.items())


def test_a_checkpoint_of_one_file_is_exported(both, tmp_path):
    folder, (rank, _) = both
    make_tokenizer().save_pretrained(tmp_path / "tokenizer")
    where = export_checkpoint(folder / "shares=False.ckpt", tmp_path / "model", str(tmp_path / "tokenizer"))
    written = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float64).state_dict()
    assert torch.equal(written["lm_head.weight"], rank["file"][0]["policy.model.lm_head.weight"])


def test_a_checkpoint_with_other_adapters_is_refused_by_all_processes(both):
    for rank in both[1]:
        assert "the checkpoint has 0 weights of adapters, the model 4" in rank["refused"]


def test_models_that_are_read_in_shares_train_as_those_that_are_read_whole(both):
    folder, found = both
    alone = sharded_runs.by_name(None, str(folder))
    for rank in found:
        for one, expected in zip(rank["by name"], alone, strict=True):
            for step, other in zip(one.steps, expected.steps, strict=True):
                assert step == pytest.approx(other, rel=1e-6, abs=1e-9)
            assert one.weights.keys() == expected.weights.keys()
            for name, weight in expected.weights.items():
                torch.testing.assert_close(one.weights[name], weight, rtol=1e-5, atol=1e-7)
    assert len({fitted.steps[-1]["train/retain_loss"] for fitted in alone}) == 3  # a copy is the same reference


def flat(records):
    return {
        f"{name}/{key}/{column}": value
        for name, examples in records.items()
        for key, record in examples.items()
        for column, value in record.items()
        if isinstance(value, float)
    }
