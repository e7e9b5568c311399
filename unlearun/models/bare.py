"""Models whose weights have shapes but no memory, until it is known which share of them a process holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def weights_left_out() -> Iterator[None]:
    """Let modules that are built in the context have weights without memory, and buffers, which no file has, with."""
    register: Callable[..., None] = nn.Module.register_parameter

    def leave_out(module: nn.Module, name: str, weight: nn.Parameter | None) -> None:
        register(module, name, weight)
        if weight is not None and not weight.is_meta:  # else it is tied to another
            module._parameters[name] = nn.Parameter(weight.detach().to("meta"), weight.requires_grad)

    nn.Module.register_parameter = leave_out  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


@contextmanager
def stand_ins(model: nn.Module) -> Iterator[None]:
    """Let weights without memory look for a while as if they had it, where what is put beside them goes by that.

    Args:
        model: Whose modules must be there still when the context ends.
    """
    bare = [
        (module, name, weight)
        for module in model.modules()
        for name, weight in module._parameters.items()
        if weight is not None and weight.is_meta
    ]
    for module, name, weight in bare:
        one = torch.zeros((), dtype=weight.dtype, device="cpu")
        module._parameters[name] = nn.Parameter(one.expand(weight.shape), requires_grad=False)
    try:
        yield
    finally:
        for module, name, weight in bare:
            module._parameters[name] = weight


def give_memory(model: nn.Module, device: torch.device) -> None:
    """Give weights that have none memory, with whatever stands there; those that are one weight stay one.

    Args:
        model: Sharded or not.
        device: Where.
    """
    owners: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None and weight.is_meta:
                owners.setdefault(id(weight), []).append((module, name))
    model._apply(lambda tensor: torch.empty_like(tensor, device=device) if tensor.is_meta else tensor)
    for (first, name), *others in owners.values():
        for module, other in others:
            module._parameters[other] = first._parameters[name]
