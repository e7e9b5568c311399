"""The attack while a model unlearns: it leaves no trace, and finds what relearning by hand finds."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import FORGET, RETAIN, make_llama, make_tokenizer
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger

from unlearun.attacks import LightRelearn
from unlearun.data import UnlearningDataModule, collate
from unlearun.errors import UnlearunError
from unlearun.methods import NPO, RMU, FineTune, TaskVector, UnlearningMethod

ROWS = [{"question": f"{row['question']} {i}", "answer": row["answer"]} for i in range(3) for row in FORGET]


class KeepWeights(LightRelearn):
    """Keeps the model as it is before each attack."""

    def on_train_batch_end(self, trainer, pl_module, *rest) -> None:
        self.models = [*getattr(self, "models", []), copy.deepcopy(pl_module.policy.model)]
        super().on_train_batch_end(trainer, pl_module, *rest)


def fit(method: type[UnlearningMethod], callback: LightRelearn | None, tmp_path, epochs=2, checkpoint=None, **settings):
    seed_everything(0, verbose=False)
    data = UnlearningDataModule(ROWS, RETAIN, batch_size=4, validation_metrics=["probability"], overlap="allow")
    made = method(make_llama(layers=3), tokenizer=make_tokenizer(), **settings)
    made.optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3}}
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[callback] if callback else [],
        logger=CSVLogger(tmp_path) if callback else False,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(made, datamodule=data, ckpt_path=checkpoint, weights_only=False if checkpoint else None)
    return made, trainer


@pytest.mark.parametrize(("method", "settings"), [(NPO, {"sharpness_radius": 0.01}), (RMU, {"target_layer": 1})])
def test_a_run_goes_on_as_if_nothing_had_happened(method, settings, tmp_path):
    plain, _ = fit(method, None, tmp_path, **settings)
    attack = LightRelearn(every_n_steps=2, learning_rate=1e-2)
    attacked, _ = fit(method, attack, tmp_path, **settings)
    assert len(attack.points) >= 2
    weights = attacked.policy.state_dict()
    for name, weight in plain.policy.state_dict().items():
        assert torch.equal(weight, weights[name]), name


def test_a_run_that_goes_on_compares_with_its_own_start(tmp_path):
    """Broken off after the first of two epochs; what is forgotten by then is no start."""
    whole, first, second = (LightRelearn(every_n_steps=1, learning_rate=3e-3) for _ in range(3))
    fit(NPO, whole, tmp_path)
    _, trainer = fit(NPO, first, tmp_path, epochs=1)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    fit(NPO, second, tmp_path, checkpoint=str(tmp_path / "half.ckpt"))
    assert second._start == first._start == whole._start
    assert second.points == [pytest.approx(point) for point in whole.points]


def test_it_finds_what_relearning_by_hand_finds(tmp_path):
    """A copy of the model at the time, five steps of torch's AdamW, and the mean probability of the other rows."""
    attack = KeepWeights(every_n_steps=2, learning_rate=3e-3, share=0.3)
    _, trainer = fit(NPO, attack, tmp_path)
    data = trainer.datamodule
    relearnt, others = attack._rows
    known = {tuple(row.input_ids): row for row in data.examples("forget")}
    split = [
        [known[tuple(ids[mask.bool()].tolist())] for ids, mask in zip(rows.input_ids, rows.attention_mask, strict=True)]
        for rows in (relearnt, others)
    ]
    assert [len(rows) for rows in split] == [round(0.3 * len(ROWS)), len(ROWS) - round(0.3 * len(ROWS))]
    assert [point["step"] for point in attack.points] == [*range(2, trainer.global_step + 1, 2)]
    for point in attack.points:
        model = attack.models[int(point["step"]) - 1]
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        batch = collate(split[0], 0)
        for _ in range(5):
            optimizer.zero_grad()
            model(batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels).loss.backward()
            optimizer.step()
        found = []
        for row in split[1]:
            ids = torch.tensor([list(row.input_ids)])
            with torch.no_grad():
                logprobs = model(ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
            found.append(logprobs[row.start - 1 :].mean().exp().item())
        assert point["probability"] == pytest.approx(sum(found) / len(found), rel=1e-3)


def test_the_share_is_of_what_was_forgotten_since_the_start(tmp_path):
    attack = LightRelearn(every_n_steps=1)
    attack._start, values = (0.9, 0.9), iter([(0.3, 0.1), (0.6, 0.2)])
    made, trainer = fit(NPO, None, tmp_path)
    attack._measure = lambda trainer, policy: next(values)
    attack.on_train_batch_end(trainer, made)
    assert attack.points == [
        {"step": trainer.global_step, "extraction_strength": 0.6, "probability": 0.2, "recovered": pytest.approx(0.5)}
    ]


def test_values_are_logged(tmp_path):
    fit(NPO, LightRelearn(every_n_steps=3), tmp_path)
    (file,) = tmp_path.rglob("metrics.csv")
    head = file.read_text().splitlines()[0]
    assert "attack/probability" in head
    assert "attack/extraction_strength" in head


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"every_n_steps": 0}, "every_n_steps is 0; it must be a number of at least 1"),
        ({"share": 1}, "share is 1; it must be above 0 and below 1"),
        ({"max_rows": 1}, "max_rows is 1; it must be a number of at least 2"),
    ],
)
def test_wrong_arguments_are_explained(settings, said):
    with pytest.raises(UnlearunError, match=said):
        LightRelearn(**settings)


def test_a_method_that_forgets_nothing_is_refused(tmp_path):
    with pytest.raises(UnlearunError, match="LightRelearn is for a method of unlearun that forgets"):
        fit(FineTune, LightRelearn(), tmp_path)


def test_a_method_whose_weights_are_made_at_the_end_is_refused(tmp_path):
    """On its way a task vector is of a model that knows the forget set ever better."""
    with pytest.raises(UnlearunError, match="which of TaskVector are made at the end alone"):
        fit(TaskVector, LightRelearn(), tmp_path)


def test_too_few_rows_are_refused_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(NPO, "validation_step", None)
    attack = LightRelearn()
    trainer = Trainer(accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False, callbacks=[attack])
    data = UnlearningDataModule(ROWS[:1], RETAIN, batch_size=4)
    with pytest.raises(UnlearunError, match="LightRelearn needs at least 2 forget rows, found 1"):
        trainer.fit(NPO(make_llama(), tokenizer=make_tokenizer()), datamodule=data)
