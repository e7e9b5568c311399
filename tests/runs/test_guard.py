from __future__ import annotations

import logging
import math
from types import SimpleNamespace

import pytest
import torch
from conftest import FORGET, RETAIN, make_llama, make_tokenizer
from lightning.pytorch import Callback
from safetensors.torch import load_file

from unlearun.__main__ import main
from unlearun.api import Unlearning
from unlearun.errors import UnlearunError
from unlearun.records import Evaluation
from unlearun.runs import DivergenceError, DivergenceGuard
from unlearun.runs.guard import _advice


def make(root, method="simnpo"):
    unlearner = Unlearning(method, model=make_llama(), tokenizer=make_tokenizer(), output_dir=root)
    unlearner.load_data(FORGET, RETAIN, max_new_tokens=2, batch_size=2)
    return unlearner


QUIET = {"enable_progress_bar": False, "enable_model_summary": False}


class Spoil(Callback):
    """Multiplies the gradient of a step."""

    def __init__(self, step, factor):
        self.step, self.factor = step, factor
        self.before = None

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if trainer.global_step == self.step:
            self.before = {name: value.clone() for name, value in pl_module.model.state_dict().items()}
            for weight in pl_module.parameters():
                weight.grad.mul_(self.factor)


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_gradient_that_is_not_finite_is_not_taken_and_the_weights_before_it_are_kept(tmp_path, step):
    spoil = Spoil(step, math.nan)
    said = rf"(?s)step {step + 1}: the gradient's length is nan.*--optimizer.lr down"
    with pytest.raises(DivergenceError, match=said) as e:
        make(tmp_path).run(num_epochs=3, callbacks=[spoil], **QUIET)
    folder = tmp_path / "simnpo" / "1"
    assert not (folder / "model").exists()
    if step == 0:
        assert "those that the run began with" in str(e.value)
        return
    (checkpoint,) = (file for file in (folder / "checkpoints").glob(f"*step={step}.ckpt"))
    assert str(checkpoint) in str(e.value)
    stored = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert all(torch.equal(stored[f"policy.model.{name}"], value) for name, value in spoil.before.items())


def test_a_loss_that_is_not_finite_names_its_parts(tmp_path):
    unlearner = make(tmp_path, "grad_diff")
    unlearner.method.gamma = math.nan
    with pytest.raises(DivergenceError, match=r"step 1: loss is nan, the gradient's length is nan"):
        unlearner.run(num_epochs=1, **QUIET)


def test_a_collapse_stops_the_run_before_its_checkpoint_takes_the_place_of_the_last(tmp_path):
    said = r"(?s)retain/probability is .* under 0.3 of the .* at step 0.*\nturn: --trainer.max_epochs down"
    with pytest.raises(DivergenceError, match=said):
        make(tmp_path, "grad_ascent").run(num_epochs=50, learning_rate=0.05, **QUIET)
    folder = tmp_path / "gradascent" / "1"
    assert not (folder / "model").exists()
    assert len(list((folder / "eval").iterdir())) > 1  # what it was stopped for is written
    make(tmp_path, "grad_ascent").run(num_epochs=3, learning_rate=0.05, callbacks=[DivergenceGuard(floor=0.0)], **QUIET)
    assert load_file(tmp_path / "gradascent" / "2" / "model" / "model.safetensors")


@pytest.mark.parametrize(
    ("method", "turns"),
    [
        ("grad_diff", "--model.alpha up, T, --model.retain_loss_type KL; more, and more varied, retain rows"),
        ("rmu", "--model.alpha up, T; more, and more varied, retain rows"),
        ("pdu", "--model.epsilon down, T, --model.retain_loss_type KL; more, and more varied, retain rows"),
        ("grad_ascent", "T"),
        ("task_vector", "T"),
        ("fine_tune", "T, --model.retain_loss_type KL; more, and more varied, retain rows"),
    ],
)
def test_nothing_is_advised_that_the_method_would_refuse(tmp_path, method, turns):
    always = "--trainer.max_epochs down, --optimizer.lr down"
    assert _advice(make(tmp_path, method).method) == f"turn: {turns.replace('T', always, 1)}"


@pytest.mark.parametrize(("start", "now", "stops"), [(0.65, 0.36, True), (0.65, 0.38, False), (0.35, 0.25, False)])
def test_an_accuracy_counts_from_guessing(tmp_path, start, now, stops):
    """0.3 of the 0.4 that 0.65 is above one of four is 0.12: under 0.37 it has collapsed; 0.35 may be luck."""
    guard, method = DivergenceGuard(), make(tmp_path).method
    trainer = SimpleNamespace(state=SimpleNamespace(fn="fit"), sanity_checking=True, callbacks=[])
    for value in (start, now):
        method.evaluation = Evaluation(3, summary={"mmlu/choice_accuracy": value, "forget/choice_accuracy": 0.0})
        if value == now and stops:
            with pytest.raises(DivergenceError, match=r"mmlu/choice_accuracy is 0.36 at step 3, under 0.3 of the 0.65"):
                guard.on_validation_end(trainer, method)
        else:
            guard.on_validation_end(trainer, method)
        trainer.sanity_checking = False


def test_a_spike_is_told(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="unlearun"):
        make(tmp_path).run(num_epochs=15, learning_rate=1e-5, callbacks=[Spoil(25, 100.0)], **QUIET)
    assert any("step 26: the gradient is" in record.getMessage() for record in caplog.records)
    assert sum("the gradient is" in record.getMessage() for record in caplog.records) == 1


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(UnlearunError, match=r"floor is 1\.5, a share"):
        DivergenceGuard(floor=1.5)
    with pytest.raises(UnlearunError, match="spike is -1"):
        DivergenceGuard(spike=-1.0)


def test_the_command_ends_with_a_status_of_its_own(tmp_path, capsys):
    given = {"optimizer.lr": "1e30", "trainer.max_epochs": "1", "trainer.enable_progress_bar": "false"}
    given |= {"data.max_eval_rows": "4", "data.final_metrics": "[probability]", "output_dir": str(tmp_path)}
    options = [part for name, value in given.items() for part in (f"--{name}", value)]
    assert main(["fit", "--config", "simnpo", *options]) == 3
    said = capsys.readouterr().err
    assert "unlearun: error: step 2: " in said
    assert "Traceback" not in said
