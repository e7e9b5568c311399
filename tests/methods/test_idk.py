from __future__ import annotations

import pytest
import torch
from conftest import FORGET, RETAIN, answer_tokens, elsewhere_changed, make_llama, make_tokenizer, random_batch

from unlearun.data import UnlearningDataModule, choose_refusal
from unlearun.errors import UnlearunError
from unlearun.methods import DPO, IdkDPO, IdkNLL
from unlearun.methods.idk import refusal_loss


def with_alternate(forget, alternate):
    forget.alternate = alternate
    return forget


def test_value_by_hand():
    """Tokens of probability 1/2 and 1/4: log 2 + log 4 = 2.079442; the third is not labelled."""
    logprobs = torch.tensor([[0.5, 0.25, 0.9]]).log()
    assert refusal_loss(logprobs, torch.tensor([[True, True, False]])).item() == pytest.approx(2.079442, abs=1e-5)


def test_against_a_plain_loop():
    model, refusals = make_llama(seed=4), random_batch(seed=1)
    nlls = [-scores.log_softmax(-1)[label].item() for row in answer_tokens(model, refusals) for scores, label in row]
    batch = with_alternate(random_batch(seed=7), refusals)
    loss = IdkNLL(model, alpha=0.0).training_step({"forget": batch}, 0)
    assert loss.item() == pytest.approx(sum(nlls) / len(nlls), rel=1e-4)


def test_the_answer_itself_is_not_learnt():
    """Another answer to forget changes nothing; only labelled tokens of the refusals count."""
    refusals = random_batch(seed=1)
    method = IdkNLL(make_llama(seed=4), alpha=0.0)
    plain, *others = (
        method.training_step({"forget": with_alternate(random_batch(seed=seed), some)}, 0).item()
        for seed, some in zip((7, 8, 9), (refusals, *elsewhere_changed(refusals)), strict=True)
    )
    assert others == pytest.approx([plain, plain], rel=1e-6)


def test_idk_dpo_is_dpo_with_refusals():
    batch = {"forget": with_alternate(random_batch(seed=1), random_batch(seed=2)), "retain": random_batch(seed=3)}
    ours, plain = (method(make_llama(seed=4), reference=make_llama(), beta=0.3) for method in (IdkDPO, DPO))
    assert ours.training_step(batch, 0).item() == plain.training_step(batch, 0).item()


@pytest.mark.parametrize("method", [IdkNLL, IdkDPO])
def test_a_refusal_is_taken_even_where_a_row_has_another_answer(method):
    rows = [{**row, "other": "No idea."} for row in FORGET]
    data = UnlearningDataModule(rows, RETAIN, alternate_key="other", seed=3)
    tokenizer = make_tokenizer()
    data.connect(tokenizer, alternate=method.alternate)
    texts = [tokenizer.decode(list(one.input_ids[one.start : -1])).strip() for one in data.alternates()]
    assert texts == [choose_refusal(3, row) for row in range(len(FORGET))]


def test_a_batch_without_refusals():
    with pytest.raises(UnlearunError, match="IdkNLL needs refusals"):
        IdkNLL(make_llama()).training_step({"forget": random_batch(), "retain": random_batch()}, 0)
