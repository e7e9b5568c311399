"""SIGTERM, at each place where a run can be: what is left, and that the run goes on from there."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from conftest import FORGET, RETAIN, make_llama, make_tokenizer
from lightning.pytorch import Callback
from safetensors.torch import load_file

from unlearun.api import Unlearning


class Told(Callback):
    """Sends the signal to its own process, once, at a place and after so many steps."""

    def __init__(self, hook, step):
        self.step, self.sent = step, False
        setattr(self, hook, self.send)

    def send(self, trainer, *_, **__):
        if trainer.global_step == self.step and not self.sent:
            self.sent = True
            os.kill(os.getpid(), signal.SIGTERM)


def fit(root, resume=None, callbacks=()):
    unlearner = Unlearning("simnpo", model=make_llama(), tokenizer=make_tokenizer(), output_dir=root)
    unlearner.load_data(FORGET, RETAIN, max_new_tokens=2, batch_size=2, validation_metrics=["probability"])
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "callbacks": [*callbacks]}
    return unlearner.run(num_epochs=3, learning_rate=1e-2, resume=resume, **quiet)


PLACES = [("on_train_batch_start", 1), ("on_train_batch_end", 3), ("on_validation_batch_end", 2)]
PLACES += [("on_validation_start", 4), ("on_validation_end", 4), ("on_train_epoch_end", 2)]


@pytest.mark.parametrize(("hook", "step"), PLACES)
def test_a_run_told_to_end_goes_on_and_lacks_nothing(hook, step, tmp_path):
    whole = fit(tmp_path / "whole")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end:
        fit(tmp_path / "told", callbacks=[Told(hook, step)])
    assert end.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == before
    folder = tmp_path / "told" / "simnpo" / "1"
    assert max(int(file.stem.rpartition("=")[2]) for file in (folder / "checkpoints").iterdir()) == step
    fit(tmp_path / "told", resume=folder)
    names = {file.name for file in (whole / "eval").iterdir()}
    assert names == {f"step={n}.json" for n in (0, 2, 4, 6)}
    assert {file.name for file in (folder / "eval").iterdir()} == names  # also what was being measured
    one, other = (load_file(run / "model" / "model.safetensors") for run in (whole, folder))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_told_to_end_before_its_first_step_leaves_nothing(tmp_path):
    with pytest.raises(SystemExit) as end:
        fit(tmp_path, callbacks=[Told("on_validation_batch_end", 0)])
    assert end.value.code == 143
    assert not list(tmp_path.iterdir())
