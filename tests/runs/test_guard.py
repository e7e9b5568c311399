from __future__ import annotations

import logging
import math

import pytest
import torch
from conftest import FORGET, RETAIN, make_llama, make_tokenizer
from lightning.pytorch import Callback
from safetensors.torch import load_file

from unlearun.__main__ import main
from unlearun.api import Unlearning
from unlearun.errors import UnlearunError
from unlearun.runs import DivergenceError, DivergenceGuard


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
    said = r"(?s)retain/probability is .* under 0.3 of the .* at step 0.*--model.alpha up"
    with pytest.raises(DivergenceError, match=said):
        make(tmp_path, "grad_ascent").run(num_epochs=50, learning_rate=0.05, **QUIET)
    folder = tmp_path / "gradascent" / "1"
    assert not (folder / "model").exists()
    assert len(list((folder / "eval").iterdir())) > 1  # what it was stopped for is written
    make(tmp_path, "grad_ascent").run(num_epochs=3, learning_rate=0.05, callbacks=[DivergenceGuard(floor=0.0)], **QUIET)
    assert load_file(tmp_path / "gradascent" / "2" / "model" / "model.safetensors")


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
