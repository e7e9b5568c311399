"""unlearun: make a causal language model forget chosen data, keep the rest, and measure both."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unlearun.api import Unlearning as Unlearning
    from unlearun.data import Batch as Batch
    from unlearun.data import UnlearningDataModule as UnlearningDataModule
    from unlearun.errors import UnlearunError as UnlearunError
    from unlearun.methods import DPO as DPO
    from unlearun.methods import NPO as NPO
    from unlearun.methods import RMU as RMU
    from unlearun.methods import GradAscent as GradAscent
    from unlearun.methods import GradDiff as GradDiff
    from unlearun.methods import SimNPO as SimNPO
    from unlearun.methods import UnlearningMethod as UnlearningMethod

# Each public name once, with the module it lives in: importing the package loads neither torch nor transformers.
_HOMES = {
    "unlearun.api": ["Unlearning"],
    "unlearun.data": ["Batch", "UnlearningDataModule"],
    "unlearun.errors": ["UnlearunError"],
    "unlearun.methods": ["DPO", "NPO", "RMU", "GradAscent", "GradDiff", "SimNPO", "UnlearningMethod"],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the public name stands for
    if name == "__version__":
        from importlib.metadata import version

        return version("unlearun")
    if name not in _HOME:
        from unlearun.errors import closest

        raise AttributeError(f"module 'unlearun' has no attribute {name!r}.{closest(name, __all__)}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
