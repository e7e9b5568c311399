"""Low-rank adapters in place of the weights that a method would train.

Shapes: R rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from unlearun.errors import UnlearunError, check_bounds, check_choice, closest
from unlearun.models.bare import stand_ins

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LINEAR = ("Linear", "Conv1D", "Linear4bit", "Linear8bitLt")


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters: the weights stay as they are, and a product of two thin matrices is trained beside each.

    With the adapters switched off the model is the reference, so that takes no memory at all.
    Source: Hu 2021, "LoRA: Low-Rank Adaptation of Large Language Models" (2106.09685).

    Attributes:
        r: Rank R of the adapters.
        alpha: Their output is multiplied with alpha/R. None: twice the rank.
        dropout: Share of what goes into an adapter that is dropped in training, from 0 to below 1.
        target: Names of linear layers, such as q_proj and down_proj. None: all that the method would train, but for
            the output embeddings.
        save: Whether a run leaves a whole model ("merged") or the adapter alone ("adapter").
    """

    r: int = 16
    alpha: float | None = None
    dropout: float = 0.0
    target: list[str] | None = None
    save: Literal["merged", "adapter"] = "merged"

    def __post_init__(self) -> None:
        if not isinstance(self.r, int):
            raise UnlearunError(f"lora.r is {self.r!r}; expected a whole number")
        if isinstance(self.target, str):
            raise UnlearunError(f"lora.target is {self.target!r}; expected a list of names: [{self.target}]")
        if self.target is not None and not all(isinstance(name, str) for name in self.target):
            raise UnlearunError(f"lora.target is {self.target!r}; expected a list of names, such as ['q_proj']")
        check_bounds(**{"lora.r": (self.r, 1), "lora.alpha": (self.alpha, 1e-6), "lora.dropout": (self.dropout, 0.0)})
        check_choice("lora.save", self.save, ("merged", "adapter"))
        if self.dropout >= 1:
            raise UnlearunError(f"lora.dropout is {self.dropout}; it must be below 1")

    @classmethod
    def of(cls, settings: LoRA | Mapping[str, Any]) -> LoRA:
        """Make one of named settings.

        Args:
            settings: As the attributes are called; or one that is made already.

        Raises:
            UnlearunError: One does not exist, is of another kind, or is out of range.
        """
        if isinstance(settings, cls):
            return settings
        if not isinstance(settings, Mapping):
            raise UnlearunError(f'lora is {settings!r}; expected settings by name, such as {{"r": 16}}')
        known = [field.name for field in fields(cls)]
        for name in settings:
            if name not in known:
                raise UnlearunError(f"lora has no setting {name!r}.{closest(name, known)} Known: {', '.join(known)}")
        return cls(**settings)

    @property
    def scale(self) -> float:
        """What peft calls lora_alpha."""
        return 2.0 * self.r if self.alpha is None else self.alpha


def add_adapters(
    model: PreTrainedModel, lora: LoRA, modules: Iterable[nn.Module], base: tuple[str, str | None] | None = None
) -> None:
    """Freeze a model and put adapters beside its linear layers.

    Args:
        model: A causal LM of transformers, without adapters.
        lora: What they are like.
        modules: What the method would train; linear layers in and among these get adapters.
        base: Where the model comes from, for a folder of the adapter alone: see `base_of`.

    Raises:
        UnlearunError: peft is not installed, the model has adapters already, or no layer is left.
    """
    if find_spec("peft") is None:
        raise UnlearunError("LoRA needs the package peft; pip install 'unlearun[lora]'")
    from peft import LoraConfig, inject_adapter_in_model

    if has_adapters(model):
        raise UnlearunError("the model has adapters already; merge them into it first")
    chosen = _choose(model, lora, modules)
    transposed = any(type(model.get_submodule(name)).__name__ == "Conv1D" for name in chosen)
    settings = LoraConfig(
        r=lora.r,
        lora_alpha=lora.scale,  # type: ignore[arg-type] # a float serves as well
        lora_dropout=lora.dropout,
        target_modules=chosen,
        fan_in_fan_out=transposed,
        task_type="CAUSAL_LM",
    )
    model.requires_grad_(False)
    # Not by transformers' own integration, which a newer release of one of the two can break.
    with stand_ins(model):  # or adapters would have no memory either, and no values
        inject_adapter_in_model(settings, model)
    settings.base_model_name_or_path, settings.revision = base or (model.config.name_or_path, None)


def _choose(model: PreTrainedModel, lora: LoRA, modules: Iterable[nn.Module]) -> list[str]:
    inside = {id(module) for root in modules for module in root.modules()}
    head = model.get_output_embeddings()
    found = {
        name: name.rpartition(".")[2]
        for name, module in model.named_modules()
        if id(module) in inside and module is not head and type(module).__name__ in LINEAR
    }
    wanted = sorted(set(found.values())) if lora.target is None else lora.target
    unknown = [name for name in wanted if name not in found.values()]
    if unknown or not wanted:
        names = sorted(set(found.values()))
        hint = closest(unknown[0], names) if unknown else ""
        raise UnlearunError(
            f"lora.target is {lora.target}, but the layers that the method would train have {', '.join(names)}.{hint}"
        )
    return [name for name, last in found.items() if last in wanted]


def adapter_layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield name and layer of all that have adapters.

    Args:
        model: Any module.
    """
    for name, module in model.named_modules():
        if hasattr(module, "base_layer") and hasattr(module, "lora_A"):
            yield name, module


def adapter_names(names: Iterable[str]) -> set[str]:
    """Return those names of weights that belong to adapters.

    >>> sorted(adapter_names(["a.weight", "a.lora_A.default.weight"]))
    ['a.lora_A.default.weight']
    """
    return {name for name in names if ".lora_" in name}


def has_adapters(model: nn.Module) -> bool:
    """Say whether a model has adapters.

    Args:
        model: Any module.
    """
    return next(adapter_layers(model), None) is not None


def adapter_weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return the weights of the adapters alone, under peft's names.

    Args:
        model: With adapters.
    """
    from peft import get_peft_model_state_dict

    (name,) = model.peft_config
    weights: dict[str, Tensor] = get_peft_model_state_dict(model, adapter_name=name)
    return weights


def write_adapters(model: PreTrainedModel, folder: Path, weights: dict[str, Tensor] | None = None) -> None:
    """Write the adapters alone, as peft does.

    Args:
        model: With adapters.
        folder: Where to.
        weights: See `adapter_weights`; None: the model's.
    """
    from safetensors.torch import save_file

    (name,) = model.peft_config
    state = adapter_weights(model) if weights is None else weights
    folder.mkdir(parents=True, exist_ok=True)
    # peft looks for them inside its own wrapper.
    named = {f"base_model.model.{key}": value.detach().cpu().contiguous() for key, value in state.items()}
    save_file(named, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = copy(model.peft_config[name])
    settings.inference_mode = True
    settings.save_pretrained(str(folder))


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """Switch a model's adapters off for as long as the context lasts.

    Args:
        model: With adapters.
    """
    layers = [layer for _, layer in adapter_layers(model)]
    trained = [weight for layer in layers for weight in layer.parameters() if weight.requires_grad]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for weight in trained:  # peft freezes what it switches off
            weight.requires_grad_(True)


@torch.no_grad()
def scale_adapters(model: nn.Module, factor: float) -> None:
    """Multiply what all adapters add.

    Args:
        model: With adapters.
        factor: Negative turns their effect round.
    """
    for _, layer in adapter_layers(model):
        for up in layer.lora_B.values():
            up.weight.mul_(factor)
