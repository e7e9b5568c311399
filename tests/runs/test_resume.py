"""A run that was killed goes on, and ends as if it never had been."""

from __future__ import annotations

import os
import random
import signal

import pytest
from interrupted import Case, finish, interrupt, steps_left

CASES = {
    "NPO": Case("npo", {"retain_loss_type": "KL"}, accumulate=2),
    "RMU": Case("rmu", {"target_layer": 1, "adaptive": True}),
    "PDU": Case("pdu", {"epsilon": 1.0}),
    "SimNPO with adapters": Case("simnpo", {"lora": {"r": 4, "dropout": 0.2}}),
    "GradDiff with both wrappers": Case("grad_diff", {"gradient_surgery": True, "sharpness_radius": 0.05}),
}
KILLS = int(os.environ.get("UNLEARUN_KILLS", "5"))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The weights at the end of a run that nobody stopped."""
    found = {}

    def weights(name):
        if name not in found:
            found[name] = finish(tmp_path_factory.mktemp("unbroken"), CASES[name])
        return found[name]

    return weights


def check(weights, expected):
    assert weights.keys() == expected.keys()
    assert max(float((weights[name] - expected[name]).abs().max()) for name in expected) == 0.0


@pytest.mark.parametrize("kill", range(KILLS))
def test_a_run_killed_at_any_moment_ends_with_the_weights_of_one_that_was_not(unbroken, tmp_path, kill):
    name = [*CASES][kill % len(CASES)]
    case, chance = CASES[name], random.Random(kill)
    status = interrupt(tmp_path, case, chance.randrange(16 // case.accumulate), chance.uniform(0.0, 0.15))
    assert status in (-signal.SIGKILL, 0)  # on a fast machine it may have come to its end
    check(finish(tmp_path, case), unbroken(name))


def test_sigterm_leaves_the_last_step_and_says_so_by_the_exit_status(unbroken, tmp_path):
    case = CASES["PDU"]
    assert interrupt(tmp_path, case, 6, 0.0, signal.SIGTERM) == 128 + signal.SIGTERM
    assert 6 <= steps_left(tmp_path) <= 16
    assert not list(tmp_path.glob("*/1/model"))
    check(finish(tmp_path, case), unbroken("PDU"))
