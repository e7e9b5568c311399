from __future__ import annotations

import pytest
import torch
from conftest import make_gpt2, make_llama, random_batch

from unlearun.errors import UnlearunError
from unlearun.methods import RMU
from unlearun.methods.rmu import draw_direction, steering_loss


def test_value_by_hand():
    """Width 2, one row, two labelled tokens at (1, 0) and (0, 2), target (0, 0), an unlabelled one at (9, 9):
    squared distances over width are 1/2 and 4/2, their mean is 1.25."""
    hidden = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [9.0, 9.0]]])
    mask = torch.tensor([[True, True, False]])
    assert steering_loss(hidden, torch.zeros(2), mask).item() == 1.25


def states(model, batch, layer):
    """What a decoder layer puts out, by transformers' own bookkeeping (every layer but the last)."""
    output = model(batch.input_ids, attention_mask=batch.attention_mask, output_hidden_states=True)
    return output.hidden_states[layer + 1]


def row_means(distances, batch):
    return [distances[row][batch.labels[row] != -100].mean().item() for row in range(len(batch))]


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("make", [make_llama, make_gpt2])
def test_against_full_forwards(make, adaptive):
    start, moved = make(layers=4, seed=0), make(layers=4, seed=4)
    forget, retain = random_batch(seed=1), random_batch(seed=2)
    method = RMU(moved, reference=start, steering_coeff=3.0, target_layer=1, adaptive=adaptive, alpha=7.0, gamma=0.5)
    loss = method.training_step({"forget": forget, "retain": retain}, 0)
    moved.eval()
    u = method.direction
    length = 3.0 * states(start, forget, 1).norm(dim=-1, keepdim=True) if adaptive else 3.0
    steered = row_means((states(moved, forget, 1) - length * u).pow(2).sum(-1) / u.numel(), forget)
    held = row_means((states(moved, retain, 1) - states(start, retain, 1)).pow(2).sum(-1) / u.numel(), retain)
    expected = 0.5 * sum(steered) / len(steered) + 7.0 * sum(held) / len(held)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_direction_is_a_unit_vector_of_positive_numbers_that_follows_from_the_seed():
    u = draw_direction(64, seed=3)
    assert u.norm().item() == pytest.approx(1.0)
    assert (u >= 0).all()
    assert torch.equal(u, draw_direction(64, seed=3))
    assert not torch.equal(u, draw_direction(64, seed=4))


def test_the_direction_is_the_same_whatever_device_and_precision_are_the_default():
    """Lightning loads models inside the context of its device and, for true half precision, of its dtype."""
    plain = draw_direction(8, seed=1)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            drawn = draw_direction(8, seed=1)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(drawn, plain)


def test_direction_is_in_the_checkpoint_and_the_reference_is_not():
    names = RMU(make_llama(layers=4)).state_dict().keys()
    assert "direction" in names
    assert all(name == "direction" or name.startswith("policy.model.") for name in names)


def test_default_layer_is_a_quarter_of_the_depth_and_trains_three_projections():
    method = RMU(make_llama(layers=12))
    assert method.target_layer == 3
    trained = {name for name, p in method.policy.model.named_parameters() if p.requires_grad}
    assert trained == {f"model.layers.{layer}.mlp.down_proj.weight" for layer in (1, 2, 3)}


def test_trains_the_projections_that_exist():
    method = RMU(make_gpt2(layers=4), target_layer=1)
    trained = {name for name, p in method.policy.model.named_parameters() if p.requires_grad}
    assert trained == {f"transformer.h.{layer}.mlp.c_proj.{kind}" for layer in (0, 1) for kind in ("weight", "bias")}


def test_later_layers_and_the_head_never_run():
    model = make_llama(layers=4)
    for layer in model.model.layers[2:]:
        layer.forward = None
    model.lm_head.forward = None
    batch = {"forget": random_batch(seed=1), "retain": random_batch(seed=2)}
    RMU(model, target_layer=1).training_step(batch, 0).backward()


def test_padding_changes_nothing_and_the_answer_does():
    batch, padded, answered = (random_batch() for _ in range(3))
    padded.input_ids[batch.attention_mask == 0] = 3
    answered.input_ids[0, 5] = (batch.input_ids[0, 5] + 1) % 60
    method = RMU(make_llama(layers=4), reference=make_llama(layers=4, seed=5), target_layer=1)
    for name in ("forget", "retain"):
        loss = getattr(method, f"{name}_loss")
        plain, same, other = (loss(changed).mean().item() for changed in (batch, padded, answered))
        assert same == pytest.approx(plain, rel=1e-6)
        assert abs(other - plain) > 1e-5


def test_a_row_without_labels_counts_for_nothing():
    hidden, mask = torch.ones(2, 3, 4), torch.tensor([[True, True, False], [False, False, False]])
    assert steering_loss(hidden, torch.zeros(4), mask).item() == 1.0


def test_layer_out_of_range():
    with pytest.raises(UnlearunError, match="layers 0 to 3"):
        RMU(make_llama(layers=4), target_layer=4)
