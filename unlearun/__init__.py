"""unlearun: make a causal language model forget chosen data, keep the rest, and measure both."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unlearun.api import Unlearning as Unlearning
    from unlearun.attacks import attack as attack
    from unlearun.data import Batch as Batch
    from unlearun.data import UnlearningDataModule as UnlearningDataModule
    from unlearun.errors import UnlearunError as UnlearunError
    from unlearun.methods import *  # noqa: F403 - the catalogue, written there alone

# Each public name with the module it lives in: importing the package loads neither torch nor transformers. The methods
# are in none of these lists: `unlearun.methods` is asked for every other name, so a new one is written there alone.
_HOMES = {
    "unlearun.api": ["Unlearning"],
    "unlearun.attacks": ["attack"],
    "unlearun.data": ["Batch", "UnlearningDataModule"],
    "unlearun.errors": ["UnlearunError"],
}
_METHODS = "unlearun.methods"
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the public name stands for
    if name == "__version__":
        from importlib.metadata import version

        return version("unlearun")
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    # Methods are classes; submodules, and what Python itself asks every module for, begin otherwise.
    methods = importlib.import_module(_METHODS) if name[0].isupper() else None
    known = [] if methods is None else methods.__all__
    if name not in known:
        from unlearun.errors import closest

        raise AttributeError(f"module 'unlearun' has no attribute {name!r}.{closest(name, [*__all__, *known])}")
    return getattr(methods, name)


def __dir__() -> list[str]:
    return sorted({*__all__, *importlib.import_module(_METHODS).__all__})
