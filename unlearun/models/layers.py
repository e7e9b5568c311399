"""Find the decoder layers of a causal LM, capture what one puts out, and stop there.

Shapes: B rows, T tokens, D width, L layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from unlearun.errors import UnlearunError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# What architectures call the last linear map of the MLP, the one that writes to the residual stream.
OUTPUT_PROJECTIONS = (
    "mlp.down_proj",  # Llama, Mistral, Qwen, Gemma
    "mlp.c_proj",  # GPT-2
    "mlp.fc2",  # Phi
    "mlp.dense_4h_to_h",  # GPT-NeoX, Falcon
    "mlp.fc_out",  # GPT-J
    "fc2",  # OPT
)


class LayerList(NamedTuple):
    """Where a model keeps its decoder layers.

    Attributes:
        parent: The module that runs them.
        name: Its attribute that holds the list.
        layers: The list, L long.
    """

    parent: nn.Module
    name: str
    layers: nn.ModuleList


def find_layers(model: PreTrainedModel) -> LayerList:
    """Find the decoder layers by what they are, not by what the architecture calls them.

    Args:
        model: A causal LM of transformers.

    Returns:
        The one ModuleList that is as long as the model is deep.

    Raises:
        UnlearunError: No list, or more than one, fits.
    """
    depth = model.config.get_text_config().num_hidden_layers
    found = [
        LayerList(parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == depth
    ]
    if len(found) != 1:
        raise UnlearunError(
            f"{type(model).__name__}: expected one list of {depth} decoder layers, found {len(found)}; "
            "this architecture is not supported by methods that read a layer"
        )
    return found[0]


def check_layer(layer: int, depth: int) -> int:
    """Return a layer's number once it is known to exist.

    Args:
        layer: Counted from 0.
        depth: How many layers there are.

    Raises:
        UnlearunError: There is no such layer.
    """
    if not 0 <= layer < depth:
        raise UnlearunError(f"target_layer is {layer}, but the model has layers 0 to {depth - 1}")
    return layer


def output_projection(layer: nn.Module) -> nn.Module:
    """Return the MLP output projection of a decoder layer, found by name.

    Args:
        layer: One decoder layer.

    Raises:
        UnlearunError: The layer has none of the known names.
    """
    modules = dict(layer.named_modules())
    for name in OUTPUT_PROJECTIONS:
        if name in modules:
            return modules[name]
    raise UnlearunError(
        f"{type(layer).__name__}: no MLP output projection found; looked for {', '.join(OUTPUT_PROJECTIONS)}"
    )


class Captured:
    """Holds what a layer put out.

    Attributes:
        hidden: ``(B, T, D)`` once the model has run.
    """

    hidden: Tensor | None = None


@contextmanager
def run_up_to(model: PreTrainedModel, layer: int) -> Iterator[Captured]:
    """Let the model run layers 0 to ``layer`` alone, and keep what the last of them puts out.

    The list of layers is replaced by a shorter view of the same modules for as long as the context lasts, and a
    forward hook reads the output before any final norm.

    Args:
        model: A causal LM of transformers.
        layer: Counted from 0.

    Yields:
        Where the output will stand.

    Raises:
        UnlearunError: There is no such layer.
    """
    parent, name, layers = find_layers(model)
    check_layer(layer, len(layers))
    captured = Captured()

    def keep(_module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        captured.hidden = output if isinstance(output, Tensor) else output[0]

    handle = layers[layer].register_forward_hook(keep)
    # Set past nn.Module's bookkeeping: the order of registration, and so of parameters, must not change.
    parent._modules[name] = nn.ModuleList(layers[: layer + 1])
    try:
        yield captured
    finally:
        parent._modules[name] = layers
        handle.remove()
