"""However an optimizer step is split over micro-batches and processes, it is the same step, for every method."""

from __future__ import annotations

import fits
import pytest
import torch
from processes import in_two_processes

from unlearun.methods import METHODS

# What is not the method's own default: small targets for a model of three layers, and one retain loss with a reference.
OPTIONS = {
    "RMU": {"target_layer": [0, 1], "adaptive": True, "alpha": 3.0},
    # At its own start the gradient of a cosine is 0 but for rounding, which Adam would magnify.
    "RR": {"target_layers": [1, 2], "reference": 1},
    "GradDiff": {"retain_loss_type": "KL"},
    "PDU": {"epsilon": 1.0},
}
CASES = {cls.__name__: (cls.__name__, OPTIONS.get(cls.__name__, {})) for cls in METHODS}
CASES |= {
    "NPO with sharpness": ("NPO", {"sharpness_radius": 0.1}),
    "RMU with sharpness": ("RMU", {"target_layer": 1, "sharpness_radius": 0.1}),
    "GradDiff with surgery": ("GradDiff", {"gradient_surgery": True, "retain_loss_type": "KL"}),
    "PDU with both": ("PDU", {"gradient_surgery": True, "sharpness_radius": 0.05, "epsilon": 1.0}),
    "NPO with adapters": ("NPO", {"lora": {"r": 4}, "retain_loss_type": "KL"}),
    "RR with adapters": ("RR", {"lora": {"r": 4}, "target_layers": [1], "reference": 1}),
    "SimNPO with adapters and both": ("SimNPO", {"lora": {"r": 4}, "gradient_surgery": True, "sharpness_radius": 0.1}),
}
CLIPPED = "GradDiff with surgery"


def fits_of(batch_size, accumulate):
    clips = {name: 0.5 if name == CLIPPED else 0.0 for name in CASES}
    return [fits.Fit(*case, batch_size, accumulate, clip=clips[name]) for name, case in CASES.items()]


def test_every_split_of_a_step_gives_the_same_losses_and_weights():
    """One process with batches of 4, or of 2 accumulated; two processes with 2 each, or with 1 accumulated.

    All in one test, for it is processes that cost.
    """
    whole, parts = ([fits.run(fit) for fit in fits_of(*sizes)] for sizes in ((4, 1), (2, 2)))
    two = in_two_processes(fits.run_all, [*fits_of(2, 1), *fits_of(1, 2)])
    count = len(CASES)
    ways = [parts, two[0][:count], two[1][:count], two[0][count:], two[1][count:]]
    for i, name in enumerate(CASES):
        compare(name, whole[i], [way[i] for way in ways])


def compare(name, whole, others):
    assert len(whole.steps) == (6 if name == "FineTune" else 3)  # there are twice as many retain rows
    assert whole.steps[0] != whole.steps[-1]
    for other in others:
        assert len(other.steps) == len(whole.steps)
        for one, expected in zip(other.steps, whole.steps, strict=True):
            assert one == pytest.approx(expected, rel=1e-6, abs=1e-8), name  # Lightning logs float32
        assert other.weights.keys() == whole.weights.keys()
        for key, weight in whole.weights.items():
            torch.testing.assert_close(
                other.weights[key], weight, rtol=1e-7, atol=1e-8, msg=lambda m, k=key: f"{name}, {k}: {m}"
            )
