from __future__ import annotations

import json

import pytest
from conftest import FORGET, RETAIN, make_llama, make_tokenizer
from lightning.pytorch import Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from unlearun.data import UnlearningDataModule
from unlearun.methods import SimNPO
from unlearun.runs import TRAINER_DEFAULTS, find_recorder, finish, run_arguments


@pytest.fixture
def fitted(tmp_path):
    graded = [{**row, "short_answer": row["answer"].split()[-1]} for row in FORGET]
    method = SimNPO(make_llama(), tokenizer=make_tokenizer())
    data = UnlearningDataModule(graded, RETAIN, batch_size=2, max_new_tokens=4)
    settings = {**TRAINER_DEFAULTS, "max_epochs": 2, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(**{**settings, **run_arguments(settings, tmp_path, method)})
    trainer.fit(method, datamodule=data)
    return trainer, method, data, tmp_path / "simnpo" / "1"


def read(folder, step):
    return json.loads((folder / "eval" / f"step={step}.json").read_text())


def test_each_epoch_and_step_zero_are_evaluated_and_written(fitted):
    folder = fitted[3]
    assert {file.name for file in (folder / "eval").iterdir()} == {"step=0.json", "step=2.json", "step=4.json"}
    assert read(folder, 0)["summary"]["forget/probability"] != read(folder, 4)["summary"]["forget/probability"]


def test_curves_and_records_agree_step_by_step(fitted):
    events = EventAccumulator(str(fitted[3]))
    events.Reload()
    curve = {scalar.step: scalar.value for scalar in events.Scalars("forget/probability")}
    assert curve == {step: pytest.approx(read(fitted[3], step)["summary"]["forget/probability"]) for step in (0, 2, 4)}
    assert len(events.Scalars("train/forget_loss")) == 4


def test_short_answers_are_graded_at_the_start_and_the_end(fitted):
    folder = fitted[3]
    for step in (0, 4):
        found = read(folder, step)
        assert found["summary"]["forget/short_answer"] == 0.0
        assert all("generation" in record for record in found["examples"]["forget"].values())
    assert "forget/short_answer" not in read(folder, 2)["summary"]


def test_steps_that_were_not_evaluated_are_evaluated_at_the_end(fitted, capsys):
    trainer, method, data, folder = fitted
    recorder = find_recorder(trainer)
    last, recorder.last = recorder.last, None
    (folder / "eval" / "step=4.json").unlink()
    finish(trainer, method, data)
    assert read(folder, 4)["summary"] == pytest.approx(last.summary)
    assert "before" in capsys.readouterr().out
