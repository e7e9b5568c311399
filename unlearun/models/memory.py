"""Memory of the process that nothing uses any more."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor, nn


def return_freed_memory() -> None:
    """Give what was freed back to the system, where the C library would keep it: on Linux, glibc.

    Between the tensors of a forward pass and the gradients of a backward pass it keeps holes that are too small for
    those that come next; a tenth of the peak on a CPU.
    """
    if (trim := _find_trim()) is not None:
        trim(0)


@contextmanager
def returned_behind(module: nn.Module) -> Iterator[None]:
    """Give freed memory back when the backward pass of what runs in the context comes to a module, if on a CPU.

    The gradient of a token embedding is large, and when its turn comes the activations of all layers are free.

    Args:
        module: One that returns a tensor, and is not compiled.
    """

    def give_back(_gradient: Tensor) -> None:
        return_freed_memory()

    def follow(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        if output.requires_grad and output.device.type == "cpu":
            output.register_hook(give_back)

    handle = module.register_forward_hook(follow) if torch.is_grad_enabled() else None
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()


@cache
def _find_trim() -> ctypes._NamedFuncPointer | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
