"""Weights of few bits, against transformers alone."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from unlearun.attacks import Quantise
from unlearun.errors import UnlearunError
from unlearun.models import load_model, quantisation_hushed
from unlearun.models.loading import locate
from unlearun.models.quantised import check_rounded
from unlearun.records import recovery

pytest.importorskip("bitsandbytes", reason="needs bitsandbytes")
KINDS = ["nf4", "int8", *(["int4"] if find_spec("torchao") else [])]


@pytest.fixture(scope="module")
def outcome(victim):
    with quantisation_hushed():
        return Quantise(KINDS).run(victim)


def plainly(kind: str):
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    settings = {
        "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
        | {"bnb_4bit_compute_dtype": torch.float32},
        "int8": {"load_in_8bit": True},
    }[kind]
    where = locate("pocket-gold")[0]
    return AutoModelForCausalLM.from_pretrained(
        where, dtype=torch.float32, quantization_config=BitsAndBytesConfig(**settings)
    )


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_the_quantised_model_is_what_is_measured(victim, outcome, kind):
    """Its mean answer probability, one row at a time by transformers; rows together are rounded a little otherwise."""
    found = []
    with quantisation_hushed(), torch.no_grad():
        model = plainly(kind)
        for example in victim.forget_examples:
            ids = torch.tensor([list(example.input_ids)])
            logprobs = model(ids).logits[0, :-1].float().log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
            found.append(logprobs[example.start - 1 :].mean().exp().item())
    value = outcome.variants[kind].summary["forget/probability"]
    assert value == pytest.approx(sum(found) / len(found), rel=0.02)
    assert value != victim.unlearned.summary["forget/probability"]


def test_a_model_that_never_knew_gives_nothing_back(victim, outcome):
    """What must not come back does not: the retain model, quantised."""
    for found in outcome.variants.values():
        came = recovery(
            victim.start.examples["forget"],
            victim.unlearned.examples["forget"],
            found.examples["forget"],
            "extraction_strength",
        )
        assert came.start > 0.9
        assert came.share < 0.02


def test_every_metric_is_measured_again(victim, outcome):
    for found in outcome.variants.values():
        assert found.summary.keys() == victim.unlearned.summary.keys()


def test_fewer_metrics_are_the_same_numbers(victim, outcome):
    names = ["extraction_strength", "probability", "mia"]
    with quantisation_hushed():
        (found,) = Quantise(["int8"], metrics=names).run(victim).variants.values()
    assert {"forget/probability", "retain/extraction_strength", "mia"} <= found.summary.keys()
    assert "forget/rouge" not in found.summary
    whole = outcome.variants["int8"].summary
    # Of 8 bits, activations are rounded by what else is in their batch.
    assert found.summary == pytest.approx({name: whole[name] for name in found.summary}, rel=0.01)


@pytest.mark.skipif(find_spec("torchao") is None, reason="needs torchao")
def test_four_bits_in_groups_are_near_the_weights():
    plain, few = load_model("pocket-gold"), load_model("pocket-gold", quantisation="int4")
    one, other = (model.model.layers[0].mlp.up_proj.weight for model in (plain, few))
    difference = (one - other.dequantize()).norm() / one.norm()
    assert 0.01 < difference < 0.15


def test_what_is_not_installed_is_skipped(victim, monkeypatch):
    monkeypatch.setattr("unlearun.attacks.quantise.missing_package", lambda kind: f"needs what makes {kind}")
    outcome = Quantise(["nf4"]).run(victim)
    assert not outcome.variants
    assert outcome.skipped == {"nf4": "needs what makes nf4"}


def test_what_cannot_be_quantised_is_skipped(victim, monkeypatch):
    def refuse(*given, **settings):
        raise UnlearunError("it is an adapter; merge it first")

    monkeypatch.setattr("unlearun.attacks.victim.load_model", refuse)
    outcome = Quantise(["nf4", "int8"]).run(victim)
    assert outcome.skipped == dict.fromkeys(["nf4", "int8"], "it is an adapter; merge it first")


def test_wrong_arguments_are_explained(victim):
    with pytest.raises(UnlearunError, match="kinds is 'int3'; it must be one of nf4, int8, int4"):
        Quantise(["int3"])
    with pytest.raises(UnlearunError, match="kinds is empty; name some of nf4, int8, int4"):
        Quantise([])
    with pytest.raises(UnlearunError, match="metrics lacks probability, by which the attack is measured"):
        Quantise(metrics=["extraction_strength"])


def test_a_library_that_rounds_nothing_is_told_of(tmp_path):
    """GPT-2's layers are Conv1D, which torchao passes by: that nothing came back would be no finding."""
    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=64, n_layer=1, n_head=2))
    model.save_pretrained(tmp_path)
    assert load_model(str(tmp_path), quantisation="nf4") is not None
    with pytest.raises(UnlearunError, match=r"no weight of gpt can be kept in int4: torchao rounds none .*Conv1D"):
        check_rounded("gpt", model, "int4")
    if find_spec("torchao"):
        with pytest.raises(UnlearunError, match="torchao rounds none of its layers"):
            load_model(str(tmp_path), quantisation="int4")
