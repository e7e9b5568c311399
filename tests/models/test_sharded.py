"""A policy that FSDP2 shards over two processes gives the numbers of one that is whole."""

from __future__ import annotations

import pytest
import sharded
import torch
from processes import in_two_processes


@pytest.mark.parametrize(("want", "tied"), [("hidden", False), ("logprobs", True)])
def test_values_and_gradients_are_those_of_the_whole_policy(want, tied):
    """FSDP2 averages gradients over processes; parts of the model that do not run get none."""
    found = in_two_processes(sharded.train, want, tied)
    expected = [sharded.step(sharded.make_policy(tied), want, rank) for rank in range(2)]
    assert found[0].keys() == found[1].keys() == expected[0].keys()
    for rank in range(2):
        for name, value in found[rank].items():
            is_gradient = name not in ("forget", "retain")
            right = (expected[0][name] + expected[1][name]) / 2 if is_gradient else expected[rank][name]
            torch.testing.assert_close(value, right, rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


def test_the_start_of_a_sharded_policy_stays_and_frozen_layers_are_shared():
    for result in in_two_processes(sharded.steer):
        torch.testing.assert_close(result["frozen"], result["start"], rtol=1e-9, atol=1e-9)
        assert (result["hidden"] - result["start"]).abs().max() > 1e-3
        assert result["gradient"].abs().max() > 0
