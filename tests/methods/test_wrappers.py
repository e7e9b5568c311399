from __future__ import annotations

import copy

import pytest
import torch
from conftest import FORGET, RETAIN, make_llama, make_tokenizer, random_batch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy

from unlearun.data import UnlearningDataModule, collate
from unlearun.errors import UnlearunError
from unlearun.methods import NPO, RMU, FineTune, GradAscent, GradDiff, SimNPO
from unlearun.methods.wrappers import at_sharpest, inner_product, without_conflict

QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)


def test_a_gradient_against_retain_loses_that_part_by_hand():
    """g_f = (3, 1 | -2), g_r = (0, 0 | 4): <g_f, g_r> = -8, |g_r|² = 16, so half of g_r is added: (3, 1 | 0)."""
    forget, retain = [torch.tensor([3.0, 1.0]), torch.tensor([-2.0])], [torch.zeros(2), torch.tensor([4.0])]
    found = without_conflict(forget, retain)
    assert [part.tolist() for part in found] == [[3.0, 1.0], [0.0]]
    assert inner_product(found, retain) == 0


def test_a_gradient_that_serves_retain_stays_as_it_is():
    forget, retain = [torch.tensor([3.0, 1.0])], [torch.tensor([1.0, -2.0])]
    assert torch.equal(without_conflict(forget, retain)[0], forget[0])
    assert torch.equal(without_conflict(forget, [torch.zeros(2)])[0], forget[0])


def test_the_sharp_point_by_hand():
    """L = w²/2 at w = (3, 4): g = (3, 4), |g| = 5; with ρ = 10 the gradient is taken at w + 2g = (9, 12)."""
    weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    found = at_sharpest([weight], [torch.tensor([3.0, 4.0])], 10.0, lambda: [weight.detach().clone()])
    assert found[0].tolist() == [9.0, 12.0]
    assert weight.tolist() == [3.0, 4.0]


def test_the_weights_come_back_bit_by_bit_even_where_something_fails():
    weight = torch.nn.Parameter(torch.rand(50))
    before = weight.detach().clone()

    def fail():
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        at_sharpest([weight], [torch.rand(50)], 0.3, fail)
    assert torch.equal(weight, before)


def nll(model, batch):
    output = model(batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels)
    return output.loss.double()


def gradient(loss, model):
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(model.parameters()))])


def moved(model, by):
    """A copy of a model, its weights moved by a flat vector."""
    other, at = copy.deepcopy(model), 0
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(by[at : at + weight.numel()].view_as(weight))
            at += weight.numel()
    return other


def plain_step(model, forget, retain, radius, surgery, rate, gamma=2.0, alpha=3.0):
    """One step of SGD on -γ NLL(forget) + α NLL(retain), by flat vectors; returns the flat weights."""
    g_forget, g_retain = -gamma * gradient(nll(model, forget), model), alpha * gradient(nll(model, retain), model)
    if radius:
        shifted = moved(model, radius * g_forget / g_forget.norm())
        g_forget = -gamma * gradient(nll(shifted, forget), shifted)
    if surgery:
        g_forget = g_forget - min(0.0, float(g_forget @ g_retain)) / float(g_retain @ g_retain) * g_retain
    return torch.cat([weight.detach().flatten() for weight in moved(model, -rate * (g_forget + g_retain)).parameters()])


@pytest.mark.parametrize(("radius", "surgery"), [(0.5, False), (0.0, True), (0.5, True)])
@pytest.mark.parametrize(("batch_size", "accumulate"), [(4, 1), (1, 4)])
def test_a_step_is_that_of_flat_vectors(radius, surgery, batch_size, accumulate):
    """Retain rows are the forget rows with the answers of others, so the two gradients are at odds."""
    start, tokenizer = make_llama().double(), make_tokenizer()
    retain_rows = [{**row, "answer": row["answer"] + " Yes."} for row in FORGET]
    data = UnlearningDataModule(FORGET, retain_rows, batch_size=batch_size, shuffle=False)
    method = GradDiff(
        copy.deepcopy(start),
        tokenizer=tokenizer,
        gamma=2.0,
        alpha=3.0,
        sharpness_radius=radius,
        gradient_surgery=surgery,
    )
    method.optimizer = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}
    Trainer(max_epochs=1, limit_val_batches=0, accumulate_grad_batches=accumulate, **QUIET).fit(method, datamodule=data)
    forget, retain = (collate(data.examples(name), pad_id=0) for name in ("forget", "retain"))
    expected = plain_step(start, forget, retain, radius, surgery, 0.1)
    found = torch.cat([weight.detach().flatten() for weight in method.model.parameters()])
    others = [plain_step(start, forget, retain, *other, 0.1) for other in ((0.0, False), (-radius, surgery))]
    assert (found - expected).abs().max() < 1e-6  # the loss of transformers is in fp32
    assert all((found - other).abs().max() > 1e-5 for other in others if radius or not torch.equal(other, expected))


@pytest.mark.parametrize("cls", [GradAscent, NPO, RMU])
def test_a_tiny_radius_changes_next_to_nothing_and_logs_the_loss_at_the_weights(cls):
    def fit(**arguments):
        class Seen(cls):
            def end_step(self):
                steps.append({name: part.item() for name, part in self._step_parts.items()})
                super().end_step()

        steps = []
        method = Seen(make_llama().double(), tokenizer=make_tokenizer(), **arguments)
        rate = 20.0 if cls is RMU else 0.05
        method.optimizer = {"class_path": "torch.optim.SGD", "init_args": {"lr": rate}}
        data = UnlearningDataModule(FORGET, RETAIN, batch_size=2)
        Trainer(max_epochs=2, limit_val_batches=0, precision="64-true", **QUIET).fit(method, datamodule=data)
        return steps

    plain, near, far = fit(), fit(sharpness_radius=1e-9), fit(sharpness_radius=0.5)
    assert far[0] == pytest.approx(plain[0], rel=1e-7, abs=1e-8)  # nothing has moved yet
    assert far[-1] != pytest.approx(plain[-1], rel=1e-4)
    for one, other in zip(plain, near, strict=True):
        assert one == pytest.approx(other, rel=1e-6, abs=1e-8)


def test_clipping_clips_what_the_wrappers_have_made():
    def fit(**trainer):
        class Seen(GradDiff):
            def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
                inner = optimizer.optimizer.step

                def step(*arguments, **settings):
                    result = inner(*arguments, **settings)
                    grads = [weight.grad for weight in self.parameters() if weight.grad is not None]
                    lengths.append(torch.stack([one.norm() for one in grads]).norm().item())
                    return result

                optimizer.optimizer.step = step
                super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
                optimizer.optimizer.step = inner

        lengths = []
        method = Seen(make_llama(), tokenizer=make_tokenizer(), sharpness_radius=0.1, gradient_surgery=True)
        method.optimizer = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.05}}
        data = UnlearningDataModule(FORGET, RETAIN, batch_size=2)
        Trainer(max_epochs=1, limit_val_batches=0, **QUIET, **trainer).fit(method, datamodule=data)
        return lengths

    assert min(fit()) > 0.3
    assert fit(gradient_clip_val=0.3) == pytest.approx([0.3, 0.3], rel=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GradAscent(make_llama(), gradient_surgery=True), "gradient_surgery .*GradAscent here has not both"),
        (lambda: GradDiff(make_llama(), alpha=0.0, gradient_surgery=True), "give alpha a weight"),
        (lambda: FineTune(make_llama(), sharpness_radius=0.1), "FineTune has none"),
        (lambda: SimNPO(make_llama(), sharpness_radius=-0.1), "sharpness_radius"),
    ],
)
def test_a_wrapper_that_has_nothing_to_do_is_an_error(make, message):
    with pytest.raises(UnlearunError, match=message):
        make()


class Told:
    """As much of a Trainer as is asked."""

    def __init__(self, strategy, precision):
        self.strategy, self.precision = strategy, precision


@pytest.mark.parametrize(
    ("strategy", "precision", "message"),
    [
        (DeepSpeedStrategy, "32-true", "not work with DeepSpeedStrategy"),
        (FSDPStrategy, "32-true", "not work with FSDPStrategy"),
        (object, "16-mixed", "use bf16-mixed"),
    ],
)
@pytest.mark.parametrize("wrapper", [{"sharpness_radius": 0.1}, {"gradient_surgery": True}])
def test_strategies_that_hold_the_gradients_are_refused(strategy, precision, message, wrapper):
    method = SimNPO(make_llama(), **wrapper)
    method._trainer = Told(strategy.__new__(strategy), precision)
    with pytest.raises(UnlearunError, match=f"^{next(iter(wrapper))} .*{message}"):
        method.check_wrappers()


def test_weights_that_cannot_be_moved_so_little_are_refused():
    method = SimNPO(make_llama().bfloat16(), sharpness_radius=0.01)
    method._trainer = Told(object(), "bf16-true")
    with pytest.raises(UnlearunError, match="keep them in float32"):
        method.check_wrappers()


def test_surgery_goes_by_the_direction_of_retain_whatever_it_weighs():
    """With a weight of 0 retain changes nothing itself, and the forget gradient still loses what is against it."""

    class Weightless(GradDiff):
        @property
        def retain_weight(self):
            return 0.0

    start, data = (
        make_llama().double(),
        UnlearningDataModule(FORGET, FORGET, batch_size=4, shuffle=False, overlap="allow"),
    )
    method = Weightless(copy.deepcopy(start), tokenizer=make_tokenizer(), gradient_surgery=True)
    method.optimizer = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}
    Trainer(max_epochs=1, limit_val_batches=0, **QUIET).fit(method, datamodule=data)
    # Both sets are the same: the gradient of one is minus that of the other, and nothing is left.
    for one, other in zip(method.model.parameters(), start.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-9)


def test_a_hand_made_batch_without_a_trainer_gives_the_plain_loss():
    batch = {"forget": random_batch(seed=1), "retain": random_batch(seed=2)}
    plain, wrapped = (
        SimNPO(make_llama(), **wrapper).training_step(batch, 0).item() for wrapper in ({}, {"sharpness_radius": 0.1})
    )
    assert plain == wrapped
