from __future__ import annotations

import errno
import os
import random

import numpy as np
import pytest
import torch
from conftest import FORGET, RETAIN, make_llama, make_tokenizer
from lightning.pytorch import Callback

from unlearun.api import Unlearning
from unlearun.errors import UnlearunError
from unlearun.report import read_runs
from unlearun.runs import RunCheckpoint, newest_checkpoint
from unlearun.runs.checkpoint import find_checkpoint
from unlearun.runs.checkpoint_io import WholeCheckpointIO
from unlearun.runs.random_state import from_all, random_state, restore_random_state


class Alone:
    world_size, global_rank = 1, 0


def fit(root, epochs=2, resume=None, **settings):
    unlearner = Unlearning("simnpo", model=make_llama(), tokenizer=make_tokenizer(), output_dir=root)
    unlearner.load_data(FORGET, RETAIN, max_new_tokens=2, batch_size=2)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    return unlearner.run(num_epochs=epochs, resume=resume, **quiet, **settings)


def names(folder):
    return sorted(file.name for file in (folder / "checkpoints").iterdir())


def test_one_checkpoint_is_kept_and_holds_plain_values_alone(tmp_path):
    folder = fit(tmp_path)
    assert names(folder) == ["epoch=1-step=4.ckpt"]
    stored = torch.load(folder / "checkpoints" / "epoch=1-step=4.ckpt", weights_only=True)
    assert {"state_dict", "optimizer_states", "lr_schedulers", "loops", "unlearun", "unlearun_place"} <= stored.keys()


def test_the_last_evaluated_one_stays_beside_those_in_between(tmp_path):
    folder = fit(tmp_path, epochs=-1, max_steps=3, callbacks=[RunCheckpoint(minutes=0.0)], val_check_interval=2)
    assert names(folder)[-1] == "epoch=1-step=3.ckpt"
    assert newest_checkpoint(folder).name == "epoch=1-step=3.ckpt"


def test_what_no_validation_has_seen_is_not_taken_for_good(tmp_path):
    """Every second epoch is evaluated; a run that goes on knows which checkpoint was."""
    seen = []

    class See(Callback):
        def on_train_batch_start(self, trainer, *_):
            kept = find_checkpoint(trainer).evaluated
            seen.append((trainer.global_step, kept and kept.name))
            if trainer.global_step == 7 and not self.__dict__.get("goes_on"):
                raise ValueError("a power cut")

    settings = {"epochs": 5, "check_val_every_n_epoch": 2}
    with pytest.raises(ValueError, match="a power cut"):
        fit(tmp_path, callbacks=[See()], **settings)
    good = "epoch=1-step=4.ckpt"
    assert seen == [(0, None), (1, None), (2, None), (3, None), (4, good), (5, good), (6, good), (7, good)]
    folder = tmp_path / "simnpo" / "1"
    assert names(folder) == [good, "epoch=2-step=6.ckpt"]
    seen.clear()
    later = See()
    later.goes_on = True
    fit(tmp_path, resume=folder, callbacks=[later], **settings)
    good_later = "epoch=3-step=8.ckpt"
    assert seen == [(6, good), (7, good), (8, good_later), (9, good_later)]
    assert names(folder) == [good_later, "epoch=4-step=10.ckpt"]


def test_curves_of_a_run_that_goes_on_have_each_step_once(tmp_path):
    class Cut(Callback):
        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step == 3:
                raise ValueError("a power cut")

    with pytest.raises(ValueError, match="a power cut"):
        fit(tmp_path, epochs=3, callbacks=[Cut()])
    folder = tmp_path / "simnpo" / "1"
    assert names(folder) == ["epoch=0-step=2.ckpt"]
    fit(tmp_path, epochs=3, resume=folder)
    (run,) = read_runs([folder])
    assert {"loss", "forget_loss", "retain_loss"} <= run.losses.keys()
    for steps, _ in run.losses.values():
        assert steps == [0, 1, 2, 3, 4, 5]


def test_beside_a_callback_of_the_users_nothing_is_written_twice(tmp_path):
    from lightning.pytorch.callbacks import ModelCheckpoint

    folder = fit(tmp_path, callbacks=[ModelCheckpoint(filename="mine")])
    assert names(folder) == ["mine.ckpt"]


def test_random_states_are_restored_as_they_were():
    states = from_all(Alone, random_state())
    drawn = [random.random(), float(np.random.rand()), float(torch.rand(()))]
    restore_random_state(Alone, states)
    assert [random.random(), float(np.random.rand()), float(torch.rand(()))] == drawn


def test_a_full_disk_keeps_the_last_good_checkpoint_and_says_so(tmp_path, monkeypatch):
    """The second checkpoint finds no room."""
    real, written = os.fsync, []

    def fills_up(handle):
        name = os.readlink(f"/proc/self/fd/{handle}")
        written.append(name) if "ckpt" in name else None
        if len(written) > 1 and "ckpt" in name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", fills_up)
    with pytest.raises(UnlearunError, match=r"No space left.*last good one is .*epoch=0-step=2.ckpt.*--resume"):
        fit(tmp_path)
    monkeypatch.undo()
    folder = tmp_path / "simnpo" / "1"
    assert names(folder) == ["epoch=0-step=2.ckpt"]
    fit(tmp_path, resume=folder)
    assert names(folder) == ["epoch=1-step=4.ckpt"]
    assert (folder / "model").is_dir()


def test_what_is_no_checkpoint_is_not_run(tmp_path):
    io, file = WholeCheckpointIO(), tmp_path / "x.ckpt"
    with pytest.raises(UnlearunError, match="there is no checkpoint"):
        io.load_checkpoint(file)

    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "made"),))

    torch.save({"state_dict": Evil()}, file)
    with pytest.raises(UnlearunError, match="weights and plain values"):
        io.load_checkpoint(file)
    assert not (tmp_path / "made").exists()
