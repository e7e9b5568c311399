"""Find the decoder layers of a causal LM, capture what one puts out, stop there, and do not run some twice.

Shapes: B rows, T tokens, D width, L layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

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


def layer_classes(model: PreTrainedModel) -> set[type[nn.Module]]:
    """Return the classes of a model's decoder layers, which FSDP1 wraps one by one.

    Args:
        model: A causal LM of transformers.
    """
    return {type(layer) for layer in find_layers(model).layers}


def check_layer(layer: int, depth: int) -> int:
    """Return a layer's number once it is known to exist.

    Args:
        layer: Counted from 0.
        depth: How many layers there are.

    Raises:
        UnlearunError: There is no such layer.
    """
    if not 0 <= layer < depth:
        raise UnlearunError(f"target layer is {layer}, but the model has layers 0 to {depth - 1}")
    return layer


def choose_layers(requested: int | Sequence[int] | None, usual: Sequence[int], depth: int) -> tuple[int, ...]:
    """Return the layers that a loss reads, each once and in order, once they are known to exist.

    Args:
        requested: What the user wants: one, several, or None.
        usual: What is taken for None.
        depth: How many layers there are.

    Raises:
        UnlearunError: There is no such layer, or none is named.
    """
    wanted = usual if requested is None else [requested] if isinstance(requested, int) else requested
    if isinstance(wanted, str) or not all(isinstance(layer, int) for layer in wanted):
        raise UnlearunError(f"target layers are {requested!r}; expected numbers from 0 to {depth - 1}")
    if not wanted:
        raise UnlearunError(f"the list of target layers is empty; name layers from 0 to {depth - 1}, or none")
    return tuple(check_layer(layer, depth) for layer in sorted(set(wanted)))


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


class Below:
    """What the layers below the first trained one put out for a batch, to run them once for several forwards.

    Args:
        first: The first layer that is not shared, counted from 0.

    Attributes:
        output: What layer ``first - 1`` has returned, once it has run.
    """

    def __init__(self, first: int) -> None:
        self.first = first
        self.output: Any = None


class Captured:
    """Holds what layers put out.

    Attributes:
        hidden: For the number of each layer ``(B, T, D)``, once the model has run.
    """

    def __init__(self) -> None:
        self.hidden: dict[int, Tensor] = {}


class _Shared(nn.Module):
    """Stands in the place of a layer that need not run again, and looks like it to the model around it."""

    def __init__(self, layer: nn.Module, below: Below) -> None:
        super().__init__()
        self._in_place_of = (layer, below)  # in a tuple, so that it becomes no part of this module

    def forward(self, *_args: object, **_kwargs: object) -> Any:  # noqa: ANN401 - what a layer returns
        return self._in_place_of[1].output

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - what the layer has
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_in_place_of"][0], name)


def first_trained_layer(model: PreTrainedModel) -> int:
    """Return the lowest decoder layer that is trained, counted from 0; 0 if anything beside the layers is.

    Args:
        model: A causal LM of transformers.
    """
    layers = find_layers(model).layers
    inside = {id(parameter) for parameter in layers.parameters()}
    if any(parameter.requires_grad and id(parameter) not in inside for parameter in model.parameters()):
        return 0
    trained = (i for i, layer in enumerate(layers) if any(weight.requires_grad for weight in layer.parameters()))
    return next(trained, len(layers))


@contextmanager
def run_up_to(model: PreTrainedModel, *wanted: int, below: Below | None = None) -> Iterator[Captured]:
    """Let the model run up to the highest wanted layer alone, and keep what the wanted ones put out.

    The list of layers is replaced by a shorter view of the same modules for as long as the context lasts, and
    forward hooks read the outputs before any final norm.

    Args:
        model: A causal LM of transformers.
        wanted: Layers, counted from 0.
        below: The first time its layers run and their output is kept there; from then on they do not run again.

    Yields:
        Where the outputs will stand.

    Raises:
        UnlearunError: There is no such layer.
    """
    parent, name, layers = find_layers(model)
    for layer in wanted:
        check_layer(layer, len(layers))
    captured = Captured()
    view = list(layers[: max(wanted) + 1])
    shared = 0 if below is None else min(below.first, *wanted)

    def keep(layer: int, _module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        captured.hidden[layer] = output if isinstance(output, Tensor) else output[0]

    def keep_below(_module: nn.Module, _inputs: object, output: object) -> None:
        if below is not None:
            below.output = output

    handles = [layers[layer].register_forward_hook(partial(keep, layer)) for layer in wanted]
    if below is not None and shared > 0:
        if below.output is None:
            handles.append(layers[shared - 1].register_forward_hook(keep_below))
        else:
            view[:shared] = [_Shared(each, below) for each in view[:shared]]
    # Set past nn.Module's bookkeeping: the order of registration, and so of parameters, must not change.
    parent._modules[name] = nn.ModuleList(view)
    try:
        yield captured
    finally:
        parent._modules[name] = layers
        for handle in handles:
            handle.remove()
