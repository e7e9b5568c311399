"""Weights of few bits: what they are loaded as, for training beside adapters or to see what comes back."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch

from unlearun.errors import UnlearunError, check_choice
from unlearun.packages import needs

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Quantisation: TypeAlias = Literal["nf4", "int8", "int4"]
QUANTISATIONS: tuple[Quantisation, ...] = ("nf4", "int8", "int4")
GROUP = 32
_PACKAGES = {"nf4": ("bitsandbytes", "4bit"), "int8": ("bitsandbytes", "4bit"), "int4": ("torchao", "int4")}
# What libraries tell of every layer, and of kernels that another machine would have.
_TALKATIVE = ("bitsandbytes.autograd._functions", "bitsandbytes.backends.cpu.ops", "torchao", "torch.utils._pytree")


def missing_package(kind: Quantisation) -> str | None:
    """Return how to install what a kind needs, or None where it is there.

    Args:
        kind: "nf4", "int8" or "int4".
    """
    package, extra = _PACKAGES[kind]
    return None if find_spec(package) is not None else needs(package, extra)


def quantising(model: str, kind: Quantisation, dtype: str, packed: bool, asked: str) -> dict[str, Any]:
    """Return what ``from_pretrained`` is told to quantise linear layers as it loads them.

    Args:
        model: What the user called it.
        kind: "nf4" (4 bits, bitsandbytes), "int8" (bitsandbytes) or "int4" (groups of 32 weights, torchao).
        dtype: What is computed in.
        packed: Whether the model is a GGUF file.
        asked: What asks for it, for messages.

    Raises:
        UnlearunError: A package is missing, or the model is of few bits already.
    """
    check_choice("the quantisation", kind, QUANTISATIONS)
    if packed:
        raise UnlearunError(f"{model} is a GGUF file, which cannot be loaded in {kind}; name a Hugging Face folder")
    if missing := missing_package(kind):
        raise UnlearunError(f"{asked} {missing}")
    return {"quantization_config": _settings(kind, getattr(torch, dtype))}


def _settings(kind: Quantisation, dtype: torch.dtype) -> Any:  # noqa: ANN401 - a config of transformers
    from transformers import BitsAndBytesConfig

    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    if kind == "nf4":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    with quantisation_hushed():
        from torchao.quantization import IntxWeightOnlyConfig, PerGroup
        from transformers import TorchAoConfig

        four_bits: Any = getattr(torch, "int4")  # noqa: B009 - which torch's own types do not know
        return TorchAoConfig(quant_type=IntxWeightOnlyConfig(weight_dtype=four_bits, granularity=PerGroup(GROUP)))


def check_rounded(name: str, model: PreTrainedModel, kind: Quantisation) -> None:
    """Check that there are weights of few bits at all: a library passes by, without a word, what it does not know.

    Args:
        name: What the user called the model.
        model: As it was loaded.
        kind: What its weights should be kept in.

    Raises:
        UnlearunError: All are as they were.
    """
    if all(weight.is_floating_point() and type(weight.data) is torch.Tensor for weight in model.parameters()):
        layers = sorted({type(module).__name__ for module in model.modules() if hasattr(module, "weight")})
        raise UnlearunError(
            f"no weight of {name} can be kept in {kind}: {_PACKAGES[kind][0]} rounds none of its layers "
            f"({', '.join(layers)})"
        )


def keep_unpacked(model: PreTrainedModel) -> None:
    """Keep bitsandbytes from packing weights anew for the CPU when they first run without a gradient.

    Packed, they have no backward pass, and never come back: adapters below them would learn next to nothing.

    Args:
        model: Its weights are of 4 bits.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


@contextmanager
def quantisation_hushed() -> Iterator[None]:
    """Keep what quantisation libraries tell of every layer off the screen, but not what goes wrong."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
