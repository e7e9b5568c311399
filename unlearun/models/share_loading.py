"""Load a model that is to be sharded: each process reads its share of every weight, and none ever has them all."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from unlearun.models.bare import give_memory, weights_left_out
from unlearun.models.loading import ADAPTER_FILE, locate, reading, say_trusted
from unlearun.models.sharding import is_share
from unlearun.models.soundness import check_files

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from unlearun.models.policy import Policy

log = logging.getLogger(__name__)

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"


class Place(NamedTuple):
    """Where a weight stands.

    Attributes:
        file: A safetensors file.
        key: Its name there.
    """

    file: str
    key: str


class StoredWeights:
    """The files that a model without weights can be filled from.

    Args:
        places: For the name of each weight of the model.
    """

    def __init__(self, places: dict[str, Place]) -> None:
        self.places = places

    @torch.no_grad()
    def fill(self, policy: Policy, device: torch.device) -> None:
        """Give every weight that a model lacks its memory, and read what of it belongs to this process.

        Args:
            policy: With the model, sharded or not.
            device: Where the weights shall be.
        """
        from safetensors import safe_open

        read: dict[str, list[str]] = {}
        for name, weight in named_weights(policy.model):
            stored = plain(name) in self.places
            if weight.is_meta or (stored and not isinstance(weight, nn.Parameter)):
                read.setdefault(self.places[plain(name)].file, []).append(name)
        give_memory(policy, device)
        weights = dict(named_weights(policy.model))
        for file, names in read.items():
            with safe_open(file, "pt") as opened:
                for name in names:
                    _read(opened.get_slice(self.places[plain(name)].key), weights[name])


def open_shares(model: str, dtype: str, trusted: bool = False) -> tuple[PreTrainedModel, StoredWeights] | None:
    """Build a model without weights, if each of them can be read from safetensors files by itself.

    Args:
        model: See `locate`.
        dtype: What its weights will be kept in.
        trusted: Whether code that it brings along may run.

    Returns:
        The model, whose weights have shapes alone, and where they are; None where it must be loaded as a whole, the
        reason being logged.

    Raises:
        UnlearunError: There is no such model, or its config cannot be read.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    where, how = locate(model)
    check_files(model, where, how)
    say_trusted(model, trusted)
    reason = "it is a GGUF file" if how else "it is an adapter" if (Path(where) / ADAPTER_FILE).is_file() else ""
    if not reason:
        with reading(where, model, "model"):
            config = AutoConfig.from_pretrained(where, trust_remote_code=trusted)
            stored = _stored(where)
            kept: dict[str, Any] = {"dtype": getattr(torch, dtype)}
            with weights_left_out():
                made = AutoModelForCausalLM.from_config(config, trust_remote_code=trusted, **kept)
            bare: PreTrainedModel = made.eval()
            if (file := _find(where, "generation_config.json")) is not None:
                bare.generation_config = GenerationConfig.from_pretrained(Path(file).parent)
        reason = _hindrance(bare, stored, dtype)
    if reason:
        log.info("%s is loaded as a whole by each process before it is sharded: %s", model, reason)
        return None
    bare.config.name_or_path = where
    names = {plain(name) for name, _ in named_weights(bare)}
    places = {name: place for name in names if (place := _place(name, stored, bare.base_model_prefix)) is not None}
    log.info("%s is read in shares", model)
    return bare, StoredWeights(places)


def named_weights(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield name and value of each weight, once, and of the buffers that are saved beside them."""
    yield from model.named_parameters()
    for prefix, module in model.named_modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:
                yield f"{prefix}.{name}" if prefix else name, buffer


def plain(name: str) -> str:
    """Return what a weight is called in a model without adapters.

    >>> plain("layers.0.q_proj.base_layer.weight")
    'layers.0.q_proj.weight'
    """
    return name.replace(".base_layer.", ".")


def _find(where: str, name: str) -> str | None:
    """Return the path of a model's file, of the hub's cache where it is no folder."""
    from transformers.utils.hub import cached_file

    missing_is_fine = dict.fromkeys(
        ("_raise_exceptions_for_missing_entries", "_raise_exceptions_for_gated_repo"), False
    )
    found: str | None = cached_file(where, name, **missing_is_fine)
    return found


def _stored(where: str) -> dict[str, tuple[Place, list[int]]]:
    """Return place and shape of all that a model's safetensors files hold; nothing where it has none."""
    from safetensors import safe_open

    index = _find(where, INDEX)
    if index is not None:
        named = sorted(set(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        named = [SINGLE]
    found: dict[str, tuple[Place, list[int]]] = {}
    for name in named:
        file = _find(where, name)
        if file is not None:
            with safe_open(file, "pt") as stored:
                keys = list(stored.keys())
                found |= {key: (Place(file, key), stored.get_slice(key).get_shape()) for key in keys}
    return found


def _place(name: str, stored: dict[str, tuple[Place, list[int]]], prefix: str) -> Place | None:
    """Return where a weight is; files of a model without its head leave the prefix out, and the reverse."""
    for key in (name, name.removeprefix(f"{prefix}."), f"{prefix}.{name}"):
        if key in stored:
            return stored[key][0]
    return None


def _hindrance(bare: PreTrainedModel, stored: dict[str, tuple[Place, list[int]]], dtype: str) -> str:
    """Say why a model cannot be filled weight by weight; empty where it can."""
    if not stored:
        return "it has no safetensors files"
    if getattr(bare.config, "quantization_config", None) is not None:
        return "its weights are quantised"
    if not getattr(bare.config, "is_decoder", True):
        return "whether it is causal is yet to be tried"
    kept = getattr(bare, "_keep_in_fp32_modules", None) or getattr(bare, "_keep_in_fp32_modules_strict", None)
    if kept and dtype != "float32":
        return "some of its weights stay in float32"
    if _is_converted(bare):
        return "transformers puts some of its weights together from several"
    for name, weight in named_weights(bare):
        place = _place(name, stored, bare.base_model_prefix)
        if place is None and isinstance(weight, nn.Parameter):
            return f"its files have no {name}"
        if place is not None and stored[place.key][1] != list(weight.shape):
            return f"its files have another shape of {name}"
    return ""


def _is_converted(bare: PreTrainedModel) -> bool:
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
    except ImportError:  # a release that has no such thing
        return False
    return any(type(change).__name__ != "WeightRenaming" for change in get_model_conversion_mapping(bare))


def _read(stored: Any, weight: Any) -> None:  # noqa: ANN401 - a slice of safetensors, and a tensor or a share
    """Copy what of a stored weight this process has."""
    if not is_share(weight):
        weight.copy_(stored[:] if weight.ndim else stored[()])
        return
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    shape, offset = compute_local_shape_and_global_offset(weight.shape, weight.device_mesh, weight.placements)
    local: Tensor = weight.to_local()
    if local.numel():
        local.copy_(stored[offset[0] : offset[0] + shape[0]])
