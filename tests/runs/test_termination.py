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
from unlearun.records import Evaluation
from unlearun.runs.resume import is_finished


class Told(Callback):
    """Sends the signal to its own process, once, at a place and after so many steps."""

    def __init__(self, hook, step):
        self.step, self.sent = step, False
        setattr(self, hook, self.send)

    def send(self, trainer, *_, **__):
        if trainer.global_step == self.step and not self.sent:
            self.sent = True
            os.kill(os.getpid(), signal.SIGTERM)


def fit(root, resume=None, callbacks=(), **settings):
    unlearner = Unlearning("simnpo", model=make_llama(), tokenizer=make_tokenizer(), output_dir=root)
    unlearner.load_data(FORGET, RETAIN, max_new_tokens=2, batch_size=2, validation_metrics=["probability"])
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "callbacks": [*callbacks], **settings}
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


def test_a_run_told_to_end_as_it_is_measured_at_last_is_measured_when_it_goes_on(tmp_path):
    """Three steps end within the second epoch, so that what is left to measure comes when training is over."""
    whole = fit(tmp_path / "whole", max_steps=3)
    for hook in ("on_validation_start", "on_validation_batch_end"):
        with pytest.raises(SystemExit) as end:
            fit(tmp_path / hook, max_steps=3, callbacks=[Told(hook, 3)])
        assert end.value.code == 143
        folder = tmp_path / hook / "simnpo" / "1"
        assert not is_finished(folder)
        assert not (folder / "eval" / "step=3.json").exists()
        fit(tmp_path / hook, max_steps=3, resume=folder)
        left, expected = ({path.name for path in run.iterdir() if "events" not in path.name} for run in (folder, whole))
        assert left == expected
        found, expected = (Evaluation.read(run / "eval" / "step=3.json").summary for run in (folder, whole))
        assert found == pytest.approx(expected, nan_ok=True)
        one, other = (load_file(run / "model" / "model.safetensors") for run in (whole, folder))
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_whose_last_evaluation_fails_keeps_its_model(tmp_path):
    class Fails(Callback):
        def on_validation_start(self, trainer, *_):
            if trainer.state.fn == "validate":
                raise ValueError("no such thing")

    with pytest.raises(ValueError, match="no such thing"):
        fit(tmp_path, max_steps=3, callbacks=[Fails()])
    assert (tmp_path / "simnpo" / "1" / "model" / "model.safetensors").is_file()


def test_a_run_told_to_end_before_its_first_step_leaves_nothing(tmp_path):
    with pytest.raises(SystemExit) as end:
        fit(tmp_path, callbacks=[Told("on_validation_batch_end", 0)])
    assert end.value.code == 143
    assert not list(tmp_path.iterdir())
