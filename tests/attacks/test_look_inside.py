"""The layers, against what transformers itself says of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import make_gpt2, make_llama, random_batch
from transformers import AutoModelForCausalLM

from unlearun.attacks import LookInside, Victim
from unlearun.attacks.look_inside import probe
from unlearun.errors import UnlearunError
from unlearun.models import Policy, lens_logprobs, mean_states
from unlearun.models.loading import locate

pytest.importorskip("sklearn", reason="needs scikit-learn")


def test_the_lens_is_norm_and_head_on_each_layers_output(victim):
    """transformers' hidden states, one row at a time; its last one is behind the norm already."""
    outcome = LookInside().run(victim)
    model = AutoModelForCausalLM.from_pretrained(locate("pocket-gold")[0], dtype=torch.float32)
    layers = []
    for example in victim.forget_examples:
        ids = torch.tensor([list(example.input_ids)])
        with torch.no_grad():
            states = model(ids, output_hidden_states=True).hidden_states[1:]
            states = [*(model.model.norm(one) for one in states[:-1]), states[-1]]
            logprobs = [model.lm_head(one)[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0] for one in states]
        layers.append([one[example.start - 1 :].mean().exp().item() for one in logprobs])
    assert outcome.figures["lens"] == pytest.approx(np.mean(layers, axis=0).tolist(), rel=1e-4)
    assert outcome.figures["lens"][-1] == pytest.approx(victim.unlearned.summary["forget/probability"], rel=1e-4)


@pytest.mark.parametrize("make", [make_llama, make_gpt2])
def test_states_are_means_over_the_answer(make):
    model, batch = make(layers=3), random_batch()
    found = mean_states(Policy(model).eval(), batch)
    with torch.no_grad():
        states = model(batch.input_ids, attention_mask=batch.attention_mask, output_hidden_states=True).hidden_states
    for layer in range(2):  # the last is behind the norm there
        for row, mask in enumerate(batch.mask):
            torch.testing.assert_close(found[layer, row], states[layer + 1][row][mask].mean(0), rtol=1e-4, atol=1e-5)
    lens = lens_logprobs(Policy(model).eval(), batch)
    assert lens.shape == (3, len(batch))


def test_an_end_that_is_more_than_a_norm_is_an_error():
    model = make_llama()
    # Of whole rows, and not of the tokens that the lens picks.
    model.model.norm.register_forward_hook(lambda module, given, output: output * (-20.0 if output.ndim == 3 else 1.0))
    with pytest.raises(UnlearunError, match="LlamaForCausalLM does more behind its last layer than a norm"):
        lens_logprobs(Policy(model).eval(), random_batch())


def test_the_probe_finds_a_line_where_there_is_one_and_none_where_there_is_none():
    draw = np.random.default_rng(0)
    rows = np.repeat(np.arange(60), 2)
    true = np.tile([True, False], 60)
    noise = draw.normal(size=(120, 20))
    assert 0.3 < probe(noise, true, rows, 5, 0) < 0.7
    assert probe(noise + 3 * true[:, None], true, rows, 5, 0) > 0.95


def test_the_probe_is_never_tried_on_a_row_that_it_was_trained_on():
    """Both answers of a row share a state that no other row has: to know the row would be to know nothing of others."""
    rows = np.repeat(np.arange(40), 4)
    true = np.tile([True, False, False, False], 40)
    states = np.eye(40)[rows] * np.where(true, 1.0, -1.0)[:, None]
    assert probe(states, true, rows, 5, 0) == pytest.approx(0.5)


def test_what_the_rows_do_not_allow_is_said(tmp_path, made_run):
    rows = json.loads((made_run.parents[1] / "forget.json").read_text())
    (tmp_path / "few.json").write_text(json.dumps(rows[:3]))
    (tmp_path / "bare.json").write_text(json.dumps([{key: row[key] for key in ("question", "answer")} for row in rows]))
    for name, said in (
        ("few", "needs at least 5 rows that have both"),
        ("bare", "needs rows with a paraphrased_answer"),
    ):
        outcome = LookInside().run(Victim("pocket", {"forget": str(tmp_path / f"{name}.json")}))
        assert said in outcome.skipped["probe"]
        assert len(outcome.figures["lens"]) == 4
