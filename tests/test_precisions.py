"""Every precision is a flag: losses are float32 inside, and clipping, checkpointing and accumulation go with each."""

from __future__ import annotations

import pytest
import torch
from conftest import make_llama, random_batch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import MixedPrecision
from precisions import CLIP, PRECISIONS, fit, fit_all
from processes import in_two_processes

from unlearun.models import Policy

# Relative, of the first step; later ones part, for Adam takes the sign of small gradients too.
ROUNDING = {"32-true": 0.0, "bf16-mixed": 0.01, "bf16-true": 0.01, "16-mixed": 0.001}
METHODS = [
    ("SimNPO", {"beta": 0.1}),
    ("NPO", {"retain_loss_type": "KL"}),
    ("RMU", {"target_layer": 1, "adaptive": True}),
]


@pytest.mark.parametrize(("method", "options"), METHODS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_losses_are_float32_and_near_those_of_full_precision(precision, method, options):
    """Clipped, accumulated and with checkpointed layers."""
    plain, found = (fit(one, method, {**options, "gradient_checkpointing": True}) for one in ("32-true", precision))
    assert found.weights == ({torch.bfloat16} if precision == "bf16-true" else {torch.float32})
    assert found.losses == {torch.float32}
    assert len(found.steps) == len(plain.steps) == 4
    for i, (step, expected) in enumerate(zip(found.steps, plain.steps, strict=True)):
        rounding = ROUNDING[precision] * (20 if i else 1)
        assert step == pytest.approx(expected, rel=rounding, abs=rounding)
    assert found.steps[0]["train/forget_loss"] != found.steps[-1]["train/forget_loss"]
    assert max(found.lengths) <= CLIP * (1.01 if precision == "bf16-true" else 1.0001)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_log_probability_is_that_of_the_scores_to_float32(dtype):
    """With the sum of the exponentials in half precision it would be off by a percent."""
    policy, batch = Policy(make_llama().to(dtype)), random_batch()
    with torch.no_grad():
        scores, found = policy(batch, "logits"), policy(batch, "logprobs")
    expected = scores.double().log_softmax(-1)
    labels = batch.labels[batch.mask]
    assert found.dtype == torch.float32
    torch.testing.assert_close(
        found[batch.mask].double(), expected[torch.arange(len(labels)), labels], rtol=1e-6, atol=1e-6
    )


def test_the_scaler_of_16_mixed_leaves_out_steps_that_overflow():
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", 2.0**40, backoff_factor=2.0**-30))
    found = fit("16-mixed", "SimNPO", {"beta": 0.1}, plugin)
    assert plugin.scaler is not None
    assert plugin.scaler.get_scale() == 2.0**10
    first, second, *_, last = (step["train/forget_loss"] for step in found.steps)
    assert first == second != last


def test_two_processes_of_fsdp2_give_the_losses_of_one_in_each_precision():
    cases = [(precision, *METHODS[0]) for precision in PRECISIONS]
    for rank in in_two_processes(fit_all, cases):
        for case, found in zip(cases, rank, strict=True):
            alone = fit(*case)
            for name in ("losses", "weights"):
                assert getattr(found, name) == getattr(alone, name)
            for i, (step, expected) in enumerate(zip(found.steps, alone.steps, strict=True)):
                rounding = max(ROUNDING[case[0]] * (20 if i else 1), 1e-5)
                assert step == pytest.approx(expected, rel=rounding, abs=rounding)
            assert found.lengths == pytest.approx(alone.lengths, rel=0.02)


def test_16_mixed_on_a_cpu_becomes_bf16_mixed_and_lightning_says_so():
    """So the scaler above comes as a plugin."""
    with pytest.warns(UserWarning, match="not supported on CPU"):
        trainer = Trainer(accelerator="cpu", precision="16-mixed", logger=False, enable_checkpointing=False)
    assert trainer.precision == "bf16-mixed"
