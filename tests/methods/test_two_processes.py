"""However an optimizer step is split over micro-batches and processes, it is the same step, for every method."""

from __future__ import annotations

import sys

import fits
import torch
from fits import CASES
from processes import in_two_processes

CLIPPED = ("GradDiff with surgery", "SimNPO")
SHARED = {"ddp, 2 x 4 rows": "ddp", "fsdp2, 2 x 4 rows": "fsdp2"}


def fits_of(batch_size, accumulate=1, strategy=""):
    clips = {name: 0.5 if name in CLIPPED else 0.0 for name in CASES}
    return [fits.Fit(*case, batch_size, accumulate, clips[name], strategy) for name, case in CASES.items()]


def test_every_split_of_a_step_gives_the_same_losses_and_weights():
    """One process with batches of 8, or of 2 accumulated; two processes with 4 each, whole models or shares of one.

    All in one test, for it is processes that cost.
    """
    together = [fit for strategy in SHARED.values() for fit in fits_of(4, strategy=strategy)]
    (whole, one), (parts, other) = in_two_processes(fits.run_all, [fits_of(8), fits_of(2, accumulate=4)], together)
    found = {"1 process, 4 x 2 rows": [[fitted] for fitted in parts]}
    for i, way in enumerate(SHARED):
        some = slice(i * len(CASES), (i + 1) * len(CASES))
        found[way] = list(zip(one[some], other[some], strict=True))
    worst = {way: {name: compare(name, whole[i], ran[i]) for i, name in enumerate(CASES)} for way, ran in found.items()}
    sys.stdout.write(table(worst))
    assert max(max(pair) for column in worst.values() for pair in column.values()) < 1e-8


def compare(name, whole, others):
    """Compare the losses of all steps and the weights at the end; return the largest relative difference of a loss."""
    assert len(whole.steps) == 10
    assert whole.steps[0] != whole.steps[-1]
    first = worst = 0.0
    for other in others:
        assert [step.keys() for step in other.steps] == [step.keys() for step in whole.steps]
        for i, (one, expected) in enumerate(zip(other.steps, whole.steps, strict=True)):
            apart = max(abs(one[key] - value) / max(abs(value), 1e-3) for key, value in expected.items())
            first, worst = (apart if i == 0 else first), max(worst, apart)
        assert other.weights.keys() == whole.weights.keys()
        for key, weight in whole.weights.items():
            torch.testing.assert_close(
                other.weights[key], weight, rtol=1e-8, atol=1e-9, msg=lambda m, k=key: f"{name}, {k}: {m}"
            )
    return first, worst


def table(worst):
    """Lay out the largest relative difference of a loss from one process with batches of 8: first step, ten steps."""
    lines = ["", "largest relative difference of a loss, first step and ten steps", "  ".join(["", *worst])]
    for name in CASES:
        pairs = [f"{first:.0e} {most:.0e}" for first, most in (column[name] for column in worst.values())]
        lines.append("  ".join([f"{name:30}", *pairs]))
    return "\n".join([*lines, ""])
