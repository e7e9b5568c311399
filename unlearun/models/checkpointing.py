"""Keep fewer activations for the backward pass, and compute the others again there."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch._ops import OpOverload
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Checkpointing: TypeAlias = bool | Literal["selective"]

# What takes long to compute again for its size. Whatever is not named here, attention by other libraries too, is.
_MATMULS = ("mm", "addmm")
_ATTENTIONS = ("flash_attention_for_cpu", "flash_attention", "efficient_attention", "cudnn_attention")
_KEPT = {
    getattr(torch.ops.aten, name).default
    for name in (*_MATMULS, *(f"_scaled_dot_product_{kind}" for kind in _ATTENTIONS))
    if hasattr(torch.ops.aten, name)
}


def checkpoint_layers(model: PreTrainedModel, kind: Checkpointing) -> None:
    """Make each decoder layer keep less for the backward pass; the gradients stay the same.

    Args:
        model: A causal LM of transformers.
        kind: True keeps what goes into a layer alone, and the layer runs again: least memory, about a quarter more
            time. "selective" keeps the results of matrix products and attention, too: about half of the activations
            are gone for a few percent of the time. False changes nothing.
    """
    if kind is False:
        return
    settings: dict[str, Any] = {"use_reentrant": False}
    if kind == "selective":
        settings["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    # transformers gave it this name of late, and warns where it is called by the one that it had.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable(settings)


def _policy(_context: object, operation: OpOverload, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    keep = operation in _KEPT and not _draws(operation, args, kwargs)
    return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE


def _draws(operation: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Say whether an operation has dropout in it: what draws must draw again, or all that follows draws otherwise."""
    names = [argument.name for argument in operation._schema.arguments]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    return bool(given.get("dropout_p", 0))
