"""Memory that is free goes back to the system."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from unlearun.models import memory
from unlearun.models.memory import return_freed_memory, returned_behind

HAS_TRIM = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim")


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


@pytest.mark.skipif(not HAS_TRIM, reason="the C library here is not glibc")
def test_holes_between_tensors_in_use_go_back():
    """Of 200 MB in small tensors every second one is freed, so that no end of the heap is free."""
    tensors = [torch.ones(25_000) for _ in range(2000)]
    del tensors[::2]
    before = resident()
    return_freed_memory()
    assert before - resident() > 50e6
    assert len(tensors) == 1000


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(memory, "_find_trim", lambda: None)
    return_freed_memory()


def test_it_happens_once_behind_a_module_and_changes_no_gradient(monkeypatch):
    calls = []
    monkeypatch.setattr(memory, "return_freed_memory", lambda: calls.append(1))
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    inputs = torch.randn(2, 3)

    def gradient():
        first.zero_grad()
        second(first(inputs)).sum().backward()
        return first.weight.grad.clone()

    expected = gradient()
    with returned_behind(first):
        loss = second(first(inputs)).sum()
    assert not calls
    loss.backward()
    assert calls == [1]
    with returned_behind(first), torch.no_grad():
        first(inputs)
    assert torch.equal(gradient(), expected)
    assert calls == [1]
    assert not first._forward_hooks
