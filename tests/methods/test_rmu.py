from __future__ import annotations

import pytest
import torch
from conftest import FORGET, RETAIN, make_gpt2, make_llama, make_tokenizer, random_batch
from lightning.pytorch import Trainer

from unlearun.data import UnlearningDataModule
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
    assert method.target_layers == (3,)
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


def test_several_layers_are_averaged_and_each_trains_its_projections():
    start, moved = make_llama(layers=8, seed=0), make_llama(layers=8, seed=4)
    batch = {"forget": random_batch(seed=1), "retain": random_batch(seed=2)}
    several = RMU(moved, reference=start, steering_coeff=3.0, target_layer=[6, 1])
    assert several.target_layers == (1, 6)
    trained = {int(name.split(".")[2]) for name, weight in several.model.named_parameters() if weight.requires_grad}
    assert trained == {0, 1, 4, 5, 6}
    alone = [RMU(moved, reference=start, steering_coeff=3.0, target_layer=layer) for layer in (1, 6)]
    for name in ("forget", "retain"):
        found, *parts = (getattr(method, f"{name}_loss")(batch[name]).mean().item() for method in (several, *alone))
        assert found == pytest.approx(sum(parts) / 2, rel=1e-5)


def test_each_topic_has_a_direction_of_its_own_and_rows_without_one_the_common():
    """Three rows of topics a, b and none: each is steered to its own target, as by a method that knows it alone."""
    batch, method = random_batch(), RMU(make_llama(layers=4), steering_coeff=3.0, target_layer=1)
    batch.topics = ("a", "b", None)
    found = method.forget_loss(batch).total.item()
    targets = [draw_direction(32, 0, "a"), draw_direction(32, 0, "b"), method.direction]
    assert len({tuple(target.tolist()) for target in targets}) == 3
    hidden = states(method.model.eval(), batch, 1)
    distances = torch.stack([(hidden[row] - 3.0 * u).pow(2).sum(-1) / 32 for row, u in enumerate(targets)])
    assert found == pytest.approx(sum(row_means(distances, batch)), rel=1e-4)


def test_directions_of_topics_come_from_the_checkpoint():
    method, batch = RMU(make_llama(layers=4), tokenizer="somewhere"), random_batch()
    batch.topics = ("a", "a", "b")
    method.forget_loss(batch)
    checkpoint = {"state_dict": method.state_dict()}
    method.on_save_checkpoint(checkpoint)
    fresh = RMU(make_llama(layers=4), vector_seed=9)
    fresh.on_load_checkpoint(checkpoint)
    assert set(fresh.topic_directions) == {"a", "b"}
    assert torch.equal(fresh._directions(batch)[2, 0], draw_direction(32, 0, "b"))


def test_topics_come_from_the_rows():
    rows = [{**row, "topic": topic} for row, topic in zip(FORGET, "abba", strict=True)]
    data = UnlearningDataModule(rows, RETAIN, batch_size=4, shuffle=False)
    method = RMU(make_llama(), tokenizer=make_tokenizer())
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    Trainer(max_epochs=1, limit_val_batches=0, **quiet).fit(method, datamodule=data)
    assert set(method.topic_directions) == {"a", "b"}
