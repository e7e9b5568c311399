"""Merge adapters into the weights that they stand beside."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from unlearun.models.lora import adapter_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@torch.no_grad()
def merged_weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return the weights that a model without adapters needs to give the same output.

    Args:
        model: With adapters; it stays as it is. Weights of 4 bits are given in full.

    Returns:
        Its state, adapters added in, under the names of the plain architecture.
    """
    merged: dict[str, Tensor] = {}
    adapted = list(adapter_layers(model))
    inside = {id(module) for _, layer in adapted for module in layer.modules()}
    for name, module in model.named_modules():
        if id(module) not in inside:
            own = {**dict(module.named_parameters(recurse=False)), **_stored_buffers(module)}
            prefix = f"{name}." if name else ""
            merged |= {f"{prefix}{key}": plain_weight(module, key, value) for key, value in own.items()}
    for name, layer in adapted:
        base = layer.base_layer
        for key, value in base.named_parameters(recurse=False):
            weight = plain_weight(base, key, value)
            if key == "weight":
                deltas = [layer.get_delta_weight(adapter) for adapter in layer.active_adapters]
                weight = weight + sum(deltas).to(weight.dtype)
            merged[f"{name}.{key}"] = weight
    return merged


def merge(model: PreTrainedModel) -> PreTrainedModel:
    """Return a model without adapters that gives the same output.

    Args:
        model: With adapters, whose weights it shares as far as they are the same.
    """
    return rebuilt(model, merged_weights(model))


def rebuilt(like: PreTrainedModel, weights: dict[str, Tensor]) -> PreTrainedModel:
    """Return a plain model of the same architecture with other weights.

    Args:
        like: Whose config and generation config it has; a mark of quantisation is left out.
        weights: By the names of the plain architecture.
    """
    from transformers import AutoModelForCausalLM

    config = deepcopy(like.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.dtype = next(weight.dtype for weight in weights.values() if weight.is_floating_point())
    # The code of a class that was made by code of the model's own has been trusted; no other is run.
    trusted = type(like).__module__.startswith("transformers_modules.")
    plain: PreTrainedModel = AutoModelForCausalLM.from_config(config, trust_remote_code=trusted)
    plain.load_state_dict(weights, assign=True)
    plain.tie_weights()
    plain.generation_config = like.generation_config
    return plain.eval()


def _stored_buffers(module: nn.Module) -> dict[str, Tensor]:
    buffers = module.named_buffers(recurse=False)
    return {name: buffer for name, buffer in buffers if name not in module._non_persistent_buffers_set}


def plain_weight(module: nn.Module, name: str, value: Tensor) -> Tensor:
    """Return a parameter in full, whatever it is stored in.

    Args:
        module: Whose.
        name: Its name.
        value: As it is stored.
    """
    state = getattr(value, "quant_state", None)
    if state is None or name != "weight":
        return value.detach()
    from bitsandbytes.functional import dequantize_4bit

    return torch.as_tensor(dequantize_4bit(value.detach(), state))
