from __future__ import annotations

import pytest
from conftest import FORGET, RETAIN, answer_tokens, elsewhere_changed, make_llama, make_tokenizer, random_batch
from lightning.pytorch import Trainer

from unlearun.data import UnlearningDataModule
from unlearun.errors import UnlearunError
from unlearun.methods import FineTune

QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)


def test_against_a_plain_loop():
    model, batch = make_llama(seed=4), random_batch(seed=1)
    nlls = [-scores.log_softmax(-1)[label].item() for row in answer_tokens(model, batch) for scores, label in row]
    loss = FineTune(model).training_step({"retain": batch}, 0)
    assert loss.item() == pytest.approx(sum(nlls) / len(nlls), rel=1e-4)


def test_only_labelled_tokens_count():
    batch, method = random_batch(), FineTune(make_llama(seed=4))
    plain, *others = (method.training_step({"retain": b}, 0).item() for b in (batch, *elsewhere_changed(batch)))
    assert others == pytest.approx([plain, plain], rel=1e-6)


@pytest.mark.parametrize("forget", [None, FORGET])
def test_it_trains_on_all_of_retain_and_nothing_else(forget):
    class Seen(FineTune):
        def training_step(self, batch, batch_idx):
            assert list(batch) == ["retain"]
            rows.extend(batch["retain"].example_id.tolist())
            return super().training_step(batch, batch_idx)

    rows = []
    data = UnlearningDataModule(forget, RETAIN, batch_size=4)
    Trainer(max_epochs=1, limit_val_batches=0, **QUIET).fit(
        Seen(make_llama(), tokenizer=make_tokenizer()), datamodule=data
    )
    assert sorted(rows) == list(range(len(RETAIN)))


def test_without_rows_to_learn():
    method, data = FineTune(make_llama(), tokenizer=make_tokenizer()), UnlearningDataModule(FORGET)
    with pytest.raises(UnlearunError, match=r"trains on the retain set, but there is none; add --data\.retain"):
        Trainer(max_epochs=1, limit_val_batches=0, **QUIET).fit(method, datamodule=data)


@pytest.mark.parametrize("argument", ["gamma", "alpha"])
def test_what_it_sets_itself_cannot_be_set(argument):
    with pytest.raises(UnlearunError, match=f"FineTune has no argument '{argument}'"):
        FineTune(make_llama(), **{argument: 2.0})


def test_there_is_no_forget_loss():
    with pytest.raises(UnlearunError, match="no forget loss"):
        FineTune(make_llama()).forget_loss(random_batch())
