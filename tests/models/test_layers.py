"""Layers are found, run and left alone, in every family.

The expected states come from the full model: from ``output_hidden_states`` where that gives a layer's own output, and
from a plain hook at the last layer, whose state most families give after the final norm only.
"""

from __future__ import annotations

import pytest
import torch
from conftest import make_gpt2, random_batch
from families import FAMILIES, LAYERS, VOCABULARY, WIDTH, make_family
from torch import nn

from unlearun.errors import UnlearunError
from unlearun.models import OriginalWeights, Policy, check_layer, find_layers, output_projection
from unlearun.models.layers import first_trained_layer, run_up_to

# The last linear map of the MLP as each architecture calls it, written down from the models' own sources.
PROJECTIONS = {
    "phi": "model.layers.{}.mlp.fc2",
    "gpt2": "transformer.h.{}.mlp.c_proj",
    "gpt_neox": "gpt_neox.layers.{}.mlp.dense_4h_to_h",
    "opt": "model.decoder.layers.{}.fc2",
    "opt-projected": "model.decoder.layers.{}.fc2",
}
LLAMA_LIKE = "model.layers.{}.mlp.down_proj"


class Boom(nn.Module):
    """Stands where nothing may run."""

    def forward(self, *args, **kwargs):
        raise AssertionError("this must not run")


def full_states(model, batch):
    """What each layer puts out in the full model: the embeddings are left out, the last state is before the norm."""
    last = []
    handle = (
        find_layers(model)
        .layers[-1]
        .register_forward_hook(
            lambda _module, _inputs, output: last.append(output if isinstance(output, torch.Tensor) else output[0])
        )
    )
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    states = model(**inputs, output_hidden_states=True, use_cache=False).hidden_states
    handle.remove()
    assert len(states) == LAYERS + 1
    return [*states[1:-1], last[0]]


def fingerprint(model):
    """All that a cut forward must leave as it was."""
    return (
        list(model.state_dict()),
        [(name, id(parameter)) for name, parameter in model.named_parameters()],
        [(name, id(module), module.training) for name, module in model.named_modules()],
        [len(module._forward_hooks) for module in model.modules()],
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_finds_layers_and_projections(family):
    model = make_family(family)
    found = find_layers(model)
    assert len(found.layers) == LAYERS
    assert getattr(found.parent, found.name) is found.layers
    for index, layer in enumerate(found.layers):
        projection = output_projection(layer)
        assert projection is model.get_submodule(PROJECTIONS.get(family, LLAMA_LIKE).format(index))
        # It maps from the inner width to that of the residual stream; GPT-2's Conv1D keeps its weight transposed.
        weight = projection.weight.T if type(projection).__name__ == "Conv1D" else projection.weight
        assert weight.shape[0] == WIDTH
        assert weight.shape[1] > WIDTH


@pytest.mark.parametrize("family", FAMILIES)
def test_output_projection_is_the_last_linear_map(family):
    """Found independently, by order: no linear map with weights runs after it within its layer."""
    model = make_family(family)
    layer = find_layers(model).layers[1]
    order = []
    for module in layer.modules():
        if type(module).__name__ in ("Linear", "Conv1D"):
            module.register_forward_hook(lambda module, _inputs, _output: order.append(module))
    model(input_ids=random_batch(vocabulary=VOCABULARY).input_ids)
    assert order[-1] is output_projection(layer)


@pytest.mark.parametrize("family", FAMILIES)
def test_cut_forward_equals_full_forward(family):
    model = make_family(family)
    batch = random_batch(vocabulary=VOCABULARY)
    expected = full_states(model, batch)
    policy = Policy(model)
    for layer in range(LAYERS):
        torch.testing.assert_close(policy(batch, "hidden", layer), expected[layer], rtol=0, atol=1e-6)
        assert policy(batch, "hidden", layer).shape == (*batch.input_ids.shape, WIDTH)


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_after_the_layer_runs(family):
    """Later layers and the head are replaced by modules that raise, and the layers before run once each."""
    model = make_family(family)
    batch = random_batch(vocabulary=VOCABULARY)
    layers = find_layers(model).layers
    expected = full_states(model, batch)[1]
    runs = []
    for index in range(2):
        layers[index].register_forward_hook(lambda *_, index=index: runs.append(index))
    for index in range(2, LAYERS):
        layers[index] = Boom()
    name = next(name for name, module in model.named_modules() if module is model.get_output_embeddings())
    model.set_submodule(name, Boom())
    policy = Policy(model)
    for _ in range(2):  # the first time it also tries what the architecture can
        runs.clear()
        torch.testing.assert_close(policy(batch, "hidden", 1), expected, rtol=0, atol=1e-6)
    assert runs == [0, 1]


@pytest.mark.parametrize("family", FAMILIES)
def test_leaves_the_model_as_it_was(family):
    model = make_family(family)
    batch = random_batch(vocabulary=VOCABULARY)
    policy = Policy(model)
    before = fingerprint(model)
    logits = policy(batch, "logits")
    policy(batch, "hidden", 1)
    assert fingerprint(model) == before
    torch.testing.assert_close(policy(batch, "logits"), logits, rtol=0, atol=0)


@pytest.mark.parametrize("training", [True, False])
def test_leaves_the_model_as_it_was_when_something_fails(training):
    model = make_family("llama")
    policy = Policy(model).train(training)
    batch = random_batch(vocabulary=VOCABULARY)
    before = fingerprint(model)

    def fail(*_):
        raise RuntimeError("out of memory")

    # In a layer that runs, in the context itself, and by a layer that does not exist.
    handle = find_layers(model).layers[1].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        policy(batch, "hidden", 2)
    handle.remove()
    assert fingerprint(model) == before
    with pytest.raises(RuntimeError, match="out of memory"), run_up_to(model, 0):
        fail()
    assert fingerprint(model) == before
    with pytest.raises(UnlearunError, match="target layer is 4, but the model has layers 0 to 3"):
        policy(batch, "hidden", 4)
    assert fingerprint(model) == before
    with pytest.raises(ValueError, match="needs a layer"):
        policy(batch, "hidden")


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_equal_those_of_the_full_forward(family):
    """The same weighted sum of the states is differentiated on both ways; layers that did not run get nothing."""
    layer = 2
    model = make_family(family)
    batch = random_batch(vocabulary=VOCABULARY)
    weights = torch.randn(*batch.input_ids.shape, WIDTH, dtype=torch.float64)
    (full_states(model, batch)[layer] * weights).sum().backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    (Policy(model)(batch, "hidden", layer) * weights).sum().backward()
    got = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert got.keys() == expected.keys()
    for name, gradient in got.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-9, msg=name)
    later = {id(p) for module in find_layers(model).layers[layer + 1 :] for p in module.parameters()}
    assert not [name for name, p in model.named_parameters() if id(p) in later and name in got]
    assert output_projection(find_layers(model).layers[layer]).weight.grad.abs().sum() > 0


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable:FutureWarning")
def test_gradient_checkpointing_changes_nothing():
    batch = random_batch(vocabulary=VOCABULARY)
    gradients = []
    for checkpointing in (False, True):
        model = make_family("llama")
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        Policy(model)(batch, "hidden", 1).pow(2).sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=0, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_frozen_layers_run_once_for_the_policy_and_its_start(family):
    """Layers 0 and 1 are frozen; a change of layer 2 shows in the policy's states alone, and gradients reach it."""
    model = make_family(family)
    batch = random_batch(vocabulary=VOCABULARY)
    expected = full_states(model, batch)[3]
    layers = find_layers(model).layers
    policy = Policy(model)
    policy.requires_grad_(False)
    output_projection(layers[2]).requires_grad_(True)
    assert first_trained_layer(model) == 2
    reference = OriginalWeights(policy)
    policy(batch, "hidden", 3)  # the first time it also tries what the architecture can
    with torch.no_grad():
        output_projection(layers[2]).weight.mul_(1.5)
    moved = full_states(model, batch)[3]
    before, runs = fingerprint(model), []
    handles = [layer.register_forward_hook(lambda *_, i=i: runs.append(i)) for i, layer in enumerate(layers)]
    for order in ("reference", "policy"):
        runs.clear()
        with policy.sharing_frozen_layers():
            if order == "policy":
                hidden = policy(batch, "hidden", 3)
            frozen = reference.hidden(batch, (3,))[0]
            if order == "reference":
                hidden = policy(batch, "hidden", 3)
        assert runs == [0, 1, 2, 3, 2, 3]
        torch.testing.assert_close(frozen, expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(hidden, moved, rtol=0, atol=1e-6)
        assert not frozen.requires_grad
        (weight,) = torch.autograd.grad(hidden.sum(), output_projection(layers[2]).weight)
        (alone,) = torch.autograd.grad(policy(batch, "hidden", 3).sum(), output_projection(layers[2]).weight)
        torch.testing.assert_close(weight, alone, rtol=1e-9, atol=1e-9)
    for handle in handles:
        handle.remove()
    assert fingerprint(model) == before


@pytest.mark.parametrize("trained", ["model.embed_tokens", "lm_head", None])
def test_what_is_trained_beside_the_layers_leaves_none_to_share(trained):
    model = make_family("llama").requires_grad_(False)
    if trained is not None:
        model.get_submodule(trained).requires_grad_(True)
    assert first_trained_layer(model) == (LAYERS if trained is None else 0)


def test_with_dropout_every_forward_runs_for_itself():
    model = make_gpt2(layers=4, dropout=0.5).requires_grad_(False)
    policy, batch = Policy(model), random_batch()
    with policy.sharing_frozen_layers():
        assert not torch.equal(policy(batch, "hidden", 1), policy(batch, "hidden", 1))


def test_padding_changes_no_real_token():
    """The states at real tokens do not depend on what stands in the padding."""
    batch = random_batch(vocabulary=VOCABULARY)
    policy = Policy(make_family("llama"))
    before = policy(batch, "hidden", 1)
    real = batch.attention_mask.bool()
    batch.input_ids = torch.where(real, batch.input_ids, 7)
    torch.testing.assert_close(policy(batch, "hidden", 1)[real], before[real], rtol=0, atol=0)


@pytest.mark.parametrize("layer", [-1, 4, 100])
def test_check_layer_refuses(layer):
    with pytest.raises(UnlearunError, match=f"target layer is {layer}, but the model has layers 0 to 3"):
        check_layer(layer, 4)


def test_check_layer_accepts():
    assert [check_layer(layer, 3) for layer in range(3)] == [0, 1, 2]


def test_find_layers_refuses_what_is_not_clear():
    model = make_family("llama")
    model.second = nn.ModuleList(nn.Linear(2, 2) for _ in range(LAYERS))
    with pytest.raises(UnlearunError, match="expected one list of 4 decoder layers, found 2"):
        find_layers(model)
    del model.second
    model.config.num_hidden_layers = 7
    with pytest.raises(UnlearunError, match="expected one list of 7 decoder layers, found 0"):
        find_layers(model)


def test_output_projection_refuses_an_unknown_layer():
    with pytest.raises(UnlearunError, match=r"Linear: no MLP output projection found; looked for mlp\.down_proj"):
        output_projection(nn.Linear(2, 2))
