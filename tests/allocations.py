"""What memory a computation takes, counted tensor by tensor."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Largest(TorchDispatchMode):
    """Notes how many numbers each new tensor has; a view, or what is written in place, is not new.

    Attributes:
        sizes: In the order in which they were made; sparse ones are left out.
        calls: How often each operation ran.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.calls: Counter[str] = Counter()
        self._kept: list[torch.Tensor] = []  # or a later tensor could stand at the same place

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {self._place(value) for value in tree_leaves((args, kwargs)) if _is_dense(value)}
        self.calls[str(function)] += 1
        result = function(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if _is_dense(value) and self._place(value) not in known:
                self.sizes.append(value.numel())
                self._kept.append(value)
        return result

    @staticmethod
    def _place(value: torch.Tensor) -> int:
        return value.untyped_storage().data_ptr()


def _is_dense(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.layout is torch.strided
