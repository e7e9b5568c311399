from __future__ import annotations

import copy

import pytest
import torch
from conftest import FORGET, answer_tokens, elsewhere_changed, make_llama, make_tokenizer, random_batch
from lightning.pytorch import Callback, Trainer
from transformers import AutoModelForCausalLM

from unlearun import Unlearning
from unlearun.__main__ import main
from unlearun.data import UnlearningDataModule
from unlearun.errors import UnlearunError
from unlearun.methods import FineTune, TaskVector

QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
SGD = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}


def fitted(method, data, **trainer):
    method.optimizer = SGD
    settings = {"max_epochs": 3, "limit_val_batches": 0, **QUIET, **trainer}
    Trainer(**settings).fit(method, datamodule=data)
    return method.model


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0])
def test_the_weights_are_the_start_less_what_plain_training_changes(scale):
    """The same training as FineTune's on the same rows gives θ_ft."""
    start = make_llama().double()
    tuned = fitted(
        FineTune(copy.deepcopy(start), tokenizer=make_tokenizer()),
        UnlearningDataModule(None, FORGET, batch_size=2, shuffle=False),
    )
    ours = fitted(
        TaskVector(copy.deepcopy(start), scale, tokenizer=make_tokenizer()),
        UnlearningDataModule(FORGET, batch_size=2, shuffle=False),
    )
    moved = 0.0
    for theta, ft, found in zip(start.parameters(), tuned.parameters(), ours.parameters(), strict=True):
        assert torch.allclose(found, theta - scale * (ft - theta), rtol=1e-9, atol=1e-12)
        moved = max(moved, float((ft - theta).abs().max()))
    assert moved > 1e-3


def test_the_loss_against_a_plain_loop():
    model, batch = make_llama(seed=4), random_batch(seed=1)
    nlls = [-scores.log_softmax(-1)[label].item() for row in answer_tokens(model, batch) for scores, label in row]
    loss = TaskVector(model).training_step({"forget": batch}, 0)
    assert loss.item() == pytest.approx(sum(nlls) / len(nlls), rel=1e-4)


def test_only_labelled_tokens_count():
    batch, method = random_batch(), TaskVector(make_llama(seed=4))
    plain, *others = (method.training_step({"forget": b}, 0).item() for b in (batch, *elsewhere_changed(batch)))
    assert others == pytest.approx([plain, plain], rel=1e-6)


class Stop(Callback):
    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = trainer.global_step >= 1


def test_a_fit_that_is_stopped_early_takes_the_change_away_all_the_same():
    """One step of six: θ - (θ_1 - θ) = θ + lr ∇, for SGD."""
    start = make_llama().double()
    method = TaskVector(copy.deepcopy(start), tokenizer=make_tokenizer())
    fitted(method, UnlearningDataModule(FORGET, batch_size=2, shuffle=False), callbacks=[Stop()], min_epochs=0)
    data = UnlearningDataModule(FORGET[:2], batch_size=2, shuffle=False)
    one = fitted(TaskVector(copy.deepcopy(start), tokenizer=make_tokenizer()), data, max_epochs=1)
    for stopped, expected in zip(method.model.parameters(), one.parameters(), strict=True):
        assert torch.allclose(stopped, expected, rtol=1e-9, atol=1e-12)


def test_what_is_evaluated_saved_and_stored_is_the_result(tmp_path, monkeypatch):
    """The last evaluation, the checkpoint and the saved model: the forget set has become less likely, not more."""
    monkeypatch.chdir(tmp_path)
    make_llama().save_pretrained("tiny")
    make_tokenizer().save_pretrained("tiny")
    unlearner = Unlearning("task_vector", "tiny", scale=1.0)
    unlearner.load_data(FORGET, max_new_tokens=2, batch_size=2)
    folder = unlearner.run(learning_rate=1e-2, num_epochs=2, enable_progress_bar=False, accelerator="cpu")
    saved = AutoModelForCausalLM.from_pretrained(folder / "model")
    stored = torch.load(next((folder / "checkpoints").glob("*.ckpt")), weights_only=True)["state_dict"]
    for name, weight in unlearner.model.named_parameters():
        assert torch.equal(saved.get_parameter(name), weight)
        assert torch.equal(stored[f"policy.model.{name}"], weight)
    from unlearun.records import Evaluation

    first, middle, last = (Evaluation.read(folder / "eval" / f"step={n}.json") for n in (0, 2, 4))
    likely = [one.summary["forget/perplexity"] for one in (first, middle, last)]
    assert likely[1] < likely[0] < likely[2]


def test_a_result_is_not_trained_further(tmp_path):
    data = UnlearningDataModule(FORGET, batch_size=2)
    method = TaskVector(make_llama(), tokenizer=make_tokenizer())
    trainer = Trainer(max_epochs=1, limit_val_batches=0, **QUIET)
    trainer.fit(method, datamodule=data)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    again = TaskVector(make_llama(), tokenizer=make_tokenizer())  # left at its end, it has only to be measured
    Trainer(max_epochs=1, limit_val_batches=0, **QUIET).fit(again, datamodule=data, ckpt_path=str(tmp_path / "x.ckpt"))
    for weight, before in zip(again.policy.parameters(), method.policy.parameters(), strict=True):
        assert torch.equal(weight, before)
    fresh = TaskVector(make_llama(), tokenizer=make_tokenizer())
    with pytest.raises(UnlearunError, match="taken away already"):
        Trainer(max_epochs=2, limit_val_batches=0, **QUIET).fit(
            fresh, datamodule=data, ckpt_path=str(tmp_path / "x.ckpt")
        )


def test_a_checkpoint_before_the_last_step_is_no_result(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_llama().save_pretrained("tiny")
    make_tokenizer().save_pretrained("tiny")

    class Early(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.save_checkpoint(f"{trainer.current_epoch}.ckpt")

    method = TaskVector("tiny")
    data = UnlearningDataModule(FORGET, batch_size=2)
    Trainer(max_epochs=2, limit_val_batches=0, callbacks=[Early()], **QUIET).fit(method, datamodule=data)
    assert main(["export", "0.ckpt", "early"]) == 2
    assert "0.ckpt was written before the run's last step" in capsys.readouterr().err
    assert main(["export", "1.ckpt", "last"]) == 0


def test_a_run_of_another_method_does_not_go_on(tmp_path):
    data = UnlearningDataModule(FORGET, FORGET[:2], batch_size=2, overlap="allow")
    trainer = Trainer(max_epochs=1, limit_val_batches=0, **QUIET)
    trainer.fit(TaskVector(make_llama(), tokenizer=make_tokenizer()), datamodule=data)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    again = Trainer(max_epochs=2, limit_val_batches=0, **QUIET)
    other = FineTune(make_llama(), tokenizer=make_tokenizer())
    with pytest.raises(UnlearunError, match="of a run of TaskVector, which FineTune cannot go on with"):
        again.fit(other, datamodule=data, ckpt_path=str(tmp_path / "x.ckpt"))


def test_another_reference_is_refused():
    with pytest.raises(UnlearunError, match="TaskVector has no argument 'reference'"):
        TaskVector(make_llama(), reference=make_llama())


def test_scale_out_of_range():
    with pytest.raises(UnlearunError, match="scale"):
        TaskVector(make_llama(), scale=-1.0)
