from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from allocations import Largest
from conftest import FORGET, RETAIN, make_gpt2, make_llama, make_tokenizer, random_batch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, SingleDeviceStrategy

from unlearun.data import UnlearningDataModule, collate
from unlearun.errors import UnlearunError
from unlearun.methods import DPO, NPO, RMU, GradAscent, GradDiff, SimNPO

QUIET = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "limit_val_batches": 0,
}


class Recorded(GradDiff):
    """GradDiff that keeps what it logs at each optimizer step."""

    def on_before_optimizer_step(self, optimizer):
        self.steps = [*getattr(self, "steps", []), {k: v.item() for k, v in self._step_parts.items()}]
        super().on_before_optimizer_step(optimizer)


def fit(batch_size: int, accumulate: int, epochs: int = 3, **arguments):
    model = make_llama().double()
    method = Recorded(model, tokenizer=make_tokenizer(), **arguments)
    method.optimizer = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}
    data = UnlearningDataModule(FORGET[:3], RETAIN, batch_size=batch_size)
    Trainer(max_epochs=epochs, accumulate_grad_batches=accumulate, **QUIET).fit(method, datamodule=data)
    return method


@pytest.mark.parametrize("kind", ["NLL", "KL"])
def test_accumulation_changes_nothing_the_last_shorter_window_included(kind):
    """Three forget rows: one step of 2 and one of 1, as batches of 2, or of 1 with two accumulated."""
    whole, parts = fit(2, 1, retain_loss_type=kind), fit(1, 2, retain_loss_type=kind)
    assert len(whole.steps) == len(parts.steps) == 6
    for one, other in zip(whole.steps, parts.steps, strict=True):
        assert other == pytest.approx(one, rel=1e-9)
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-10)


def test_a_hand_made_batch_works_without_a_trainer():
    forget, retain = random_batch(seed=1), random_batch(seed=2)
    loss = SimNPO(model=make_llama(), beta=2.5).training_step({"forget": forget, "retain": retain}, 0)
    loss.backward()
    assert loss.ndim == 0
    assert loss.item() > 0


def test_the_reference_is_the_weights_at_construction():
    model = make_llama()
    method = GradDiff(model, retain_loss_type="KL")
    before = method.reference.logits(random_batch())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(method.reference.logits(random_batch()), before)


@pytest.mark.parametrize("method", [GradAscent, GradDiff, NPO, DPO, SimNPO])
def test_all_parameters_get_a_gradient(method):
    batch = random_batch()
    batch.alternate = random_batch(seed=3)
    unlearner = method(make_gpt2())
    unlearner.training_step({"forget": batch, "retain": random_batch(seed=2)}, 0).backward()
    assert all(p.grad is not None for p in unlearner.parameters() if p.requires_grad)


def test_dropout_is_on_in_training_and_off_in_the_reference():
    method = GradDiff(make_gpt2(dropout=0.5), retain_loss_type="KL", gamma=0.0)
    batch = {"forget": random_batch(), "retain": random_batch(seed=2)}
    assert method.training_step(batch, 0).item() != method.training_step(batch, 0).item()
    first, second = (method.reference.logits(batch["retain"]) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("make", [make_llama, make_gpt2])
@pytest.mark.parametrize(("checkpointing", "runs"), [(False, 2), ("selective", 4), (True, 4)])
def test_gradient_checkpointing_changes_no_gradient(checkpointing, runs, make):
    """Forget and retain each run once, and once more in the backward pass."""
    batch = {"forget": random_batch(seed=1), "retain": random_batch(seed=2)}
    expected = gradients(GradDiff(make()), batch)
    method = GradDiff(make(), gradient_checkpointing=checkpointing)
    method.training_step(batch, 0)  # the first forward also checks the head
    calls = []
    layer = method.model.get_submodule("model.layers.0.mlp" if make is make_llama else "transformer.h.0.mlp")
    layer.register_forward_pre_hook(lambda *_: calls.append(1))
    found = gradients(method, batch)
    assert len(calls) == runs
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(found, expected, strict=True))


def gradients(method, batch):
    method.zero_grad()
    method.training_step(batch, 0).backward()
    return [parameter.grad for parameter in method.parameters()]


def test_selective_checkpointing_keeps_matrix_products_and_computes_the_rest_again():
    """What waits for the backward pass lies between all and nothing, and no matrix product runs twice."""
    sizes, products = {}, {}
    for kind in (False, "selective", True):
        method = GradDiff(make_llama(layers=4), gradient_checkpointing=kind, alpha=0.0)
        batch = {"forget": random_batch(rows=4, tokens=30)}
        method.training_step(batch, 0)
        waiting = {}

        def keep(tensor, waiting=waiting):
            waiting[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        weights = {weight.untyped_storage().data_ptr() for weight in method.parameters()}
        with Largest() as ran, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            method.training_step(batch, 0).backward()
        sizes[kind] = sum(size for place, size in waiting.items() if place not in weights)
        products[kind] = ran.calls["aten.mm.default"]
    assert products["selective"] == products[False] < products[True]
    assert sizes[True] < sizes[False]


def test_an_unknown_kind_of_checkpointing():
    with pytest.raises(
        UnlearunError, match="gradient_checkpointing is 'some'; it must be one of true, false, selective"
    ):
        GradDiff(make_llama(), gradient_checkpointing="some")


def test_only_trained_parameters_reach_the_optimizer():
    method = RMU(make_llama(layers=4), target_layer=0)
    optimizer = method.configure_optimizers()
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 1
    assert optimizer.defaults["lr"] == 1e-5


@pytest.mark.parametrize("reference", [None, "given"])
def test_a_checkpoint_holds_no_reference_and_only_plain_values(tmp_path, reference):
    given = None if reference is None else make_llama(seed=3)
    method = GradDiff(make_llama(), tokenizer=make_tokenizer(), retain_loss_type="KL", reference=given)
    assert len(list(method.parameters())) == len(list(make_llama().parameters()))
    data = UnlearningDataModule(FORGET, RETAIN, batch_size=2)
    trainer = Trainer(max_steps=1, **QUIET)
    trainer.fit(method, datamodule=data)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    stored = torch.load(tmp_path / "x.ckpt", weights_only=True)
    assert all(name.startswith("policy.model.") for name in stored["state_dict"])
    assert len(stored["state_dict"]) == len(make_llama().state_dict())


def test_retain_is_needed_where_there_is_a_retain_term():
    data = UnlearningDataModule(FORGET)
    with pytest.raises(UnlearunError, match=r"--data\.retain"):
        Trainer(max_steps=1, **QUIET).fit(SimNPO(make_llama(), tokenizer=make_tokenizer()), datamodule=data)


class Seen(Callback):
    """Keeps what every validation has found."""

    def __init__(self):
        self.evaluations = []

    def on_validation_end(self, trainer, pl_module):
        self.evaluations.append(pl_module.evaluation)


def test_step_zero_is_a_whole_validation_under_a_plain_trainer_too():
    method, seen = SimNPO(make_llama(), tokenizer=make_tokenizer()), Seen()
    data = UnlearningDataModule(FORGET, RETAIN, batch_size=2, eval_batch_size=1)
    settings = {**QUIET, "limit_val_batches": 1.0, "callbacks": [seen]}
    Trainer(max_epochs=1, **settings).fit(method, datamodule=data)
    assert [evaluation.step for evaluation in seen.evaluations] == [0, 2]
    assert all(len(evaluation.examples["forget"]) == len(FORGET) for evaluation in seen.evaluations)
    assert all(len(evaluation.examples["retain"]) == len(RETAIN) for evaluation in seen.evaluations)


def test_no_sanity_steps_means_none():
    method, seen = SimNPO(make_llama(), tokenizer=make_tokenizer()), Seen()
    settings = {**QUIET, "limit_val_batches": 1.0, "callbacks": [seen], "num_sanity_val_steps": 0}
    Trainer(max_epochs=1, **settings).fit(method, datamodule=UnlearningDataModule(FORGET, RETAIN))
    assert [evaluation.step for evaluation in seen.evaluations] == [1]


@pytest.mark.parametrize("way", ["auto", "weights"])
def test_a_resumed_run_has_the_start_as_reference_and_no_second_step_zero(tmp_path, way):
    make_llama().save_pretrained(tmp_path / "tiny")
    settings = {**QUIET, "limit_val_batches": 1.0, "accelerator": "cpu"}  # a GPU adds up in another order each time

    def run(**arguments):
        method = GradDiff(str(tmp_path / "tiny"), make_tokenizer(), reference_way=way, retain_loss_type="KL")
        method.optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}}
        seen = Seen()
        trainer = Trainer(**settings, callbacks=[seen], max_epochs=arguments.pop("max_epochs"))
        trainer.fit(method, datamodule=UnlearningDataModule(FORGET, RETAIN, batch_size=2), **arguments)
        return trainer, method, [evaluation.step for evaluation in seen.evaluations]

    trainer, _, steps = run(max_epochs=1)
    assert steps == [0, 2]
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    _, resumed, steps = run(max_epochs=2, ckpt_path=tmp_path / "x.ckpt", weights_only=True)
    assert steps == [4]
    _, whole, _ = run(max_epochs=2)
    assert all(torch.equal(*pair) for pair in zip(resumed.parameters(), whole.parameters(), strict=True))
    data = UnlearningDataModule(FORGET, RETAIN)
    data.connect(make_tokenizer())
    rows = collate(data.examples("retain"), pad_id=0)
    start = GradDiff(make_llama(), retain_loss_type="KL").reference.logits(rows)
    torch.testing.assert_close(resumed.reference.logits(rows), start)


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_the_reference_has_the_precision_of_the_policy(precision):
    class First(GradDiff):
        def training_step(self, batch, batch_idx):
            self.first = getattr(self, "first", self.retain_loss(batch["retain"]).mean().item())
            return super().training_step(batch, batch_idx)

    method = First(make_llama(), tokenizer=make_tokenizer(), retain_loss_type="KL")
    Trainer(max_steps=1, precision=precision, **QUIET).fit(method, datamodule=UnlearningDataModule(FORGET, RETAIN))
    assert method.first == pytest.approx(0.0, abs=1e-7)


def test_a_limited_epoch_divides_its_last_step_by_the_rows_that_run():
    """Three batches of one row, two accumulated: the second step holds one row and is divided by that one."""
    method = Recorded(make_llama().double(), tokenizer=make_tokenizer(), alpha=0.0)
    method.optimizer = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.0}}
    data = UnlearningDataModule(FORGET, batch_size=1, shuffle=False)
    Trainer(max_epochs=1, accumulate_grad_batches=2, limit_train_batches=3, **QUIET).fit(method, datamodule=data)
    third = collate(data.examples("forget")[2:3], pad_id=0)
    expected = (make_llama().double()(third.input_ids, labels=third.labels).loss).item()
    assert method.steps[1]["forget_loss"] == pytest.approx(-expected, rel=1e-6)


def test_without_weight_there_is_no_retain_term_and_no_retain_set_is_needed():
    method = GradDiff(make_llama(), tokenizer=make_tokenizer(), alpha=0.0, retain_loss_type="KL")
    assert method.trained_sets == ("forget",)
    Trainer(max_steps=1, **QUIET).fit(method, datamodule=UnlearningDataModule(FORGET))


def test_the_policy_trains_in_train_mode_and_answers_in_eval_mode():
    modes = []

    class Watched(GradDiff):
        def training_step(self, batch, batch_idx):
            modes.append(self.model.training)
            return super().training_step(batch, batch_idx)

    model = make_gpt2(dropout=0.1)
    method = Watched(model, tokenizer=make_tokenizer())
    method.eval()
    Trainer(max_steps=1, **QUIET).fit(method, datamodule=UnlearningDataModule(FORGET, RETAIN))
    assert modes == [True]
    assert not model.training


def test_overfitting_a_batch_repeats_the_whole_batch():
    seen = []

    class Watched(GradDiff):
        def training_step(self, batch, batch_idx):
            seen.append(batch["forget"].example_id.tolist())
            return super().training_step(batch, batch_idx)

    method = Watched(make_llama(), tokenizer=make_tokenizer())
    data = UnlearningDataModule(FORGET, RETAIN, batch_size=2)
    Trainer(max_epochs=2, overfit_batches=1, **QUIET).fit(method, datamodule=data)
    assert seen == [[0, 1], [0, 1]]


def test_a_copy_given_as_reference_is_used():
    start, moved = make_llama(seed=0), make_llama(seed=4)
    batch = random_batch()
    given = GradDiff(moved, reference=start, retain_loss_type="KL").reference.logits(batch)
    own = GradDiff(copy.deepcopy(start), retain_loss_type="KL").reference.logits(batch)
    assert torch.allclose(given, own)


@pytest.mark.parametrize(
    ("name", "given", "precision", "fused"),
    [
        ("AdamW", {}, "32-true", True),
        ("AdamW", {"fused": False}, "32-true", False),
        ("AdamW", {"foreach": True}, "32-true", None),
        ("AdamW", {}, "16-mixed", None),
        ("SGD", {"lr": 0.1}, "32-true", True),
        ("AdamW", {"fused": None, "foreach": None, "capturable": False}, "32-true", True),  # as a parser writes it
        ("Adadelta", {}, "32-true", None),  # has no such form
    ],
)
def test_the_optimizer_is_fused_unless_the_user_or_the_precision_is_against_it(name, given, precision, fused):
    method = GradDiff(make_llama(), tokenizer=make_tokenizer())
    method.optimizer = {"class_path": f"torch.optim.{name}", "init_args": given}
    trainer = Trainer(**QUIET, accelerator="cpu")
    method.trainer = trainer
    trainer.strategy.precision_plugin.precision = precision
    optimizer = method.configure_optimizers()
    assert optimizer.defaults.get("fused") is fused
    assert method.optimizer["init_args"] == given  # what the run writes is what was asked


@pytest.mark.parametrize("cls", [GradDiff, RMU])
def test_a_compiled_model_gives_the_same_loss_and_gradients(cls, monkeypatch):
    """The graph is captured; translating it to machine code takes minutes."""
    whole = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **given: whole(self, backend="eager", **given))
    batch = {"forget": random_batch(seed=1), "retain": random_batch(seed=2)}
    found = []
    for compiled in (False, True):
        method = cls(make_llama(), compile_model=compiled)
        loss = method.training_step(batch, 0)
        loss.backward()
        grads = [weight.grad for weight in method.policy.parameters() if weight.requires_grad]
        found.append((loss.detach(), grads, list(method.state_dict())))
    assert found[0][2] == found[1][2]
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("larger", ["forget", "retain"])
def test_the_larger_set_is_differentiated_before_the_other_runs(larger):
    """When the other runs, all gradients of the larger are there; the value that Lightning gets is that of both."""
    seen = {}

    class Watched(GradDiff):
        def _weighted_loss(self, name, batch):
            seen[name] = all(weight.grad is not None for weight in self.policy.parameters())
            return super()._weighted_loss(name, batch)

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            seen["value"] = loss.item() == pytest.approx(self._step_parts["loss"].item())
            seen["logged"] = list(self._step_parts)
            return loss

    smaller = "retain" if larger == "forget" else "forget"
    rows = {larger: FORGET, smaller: [{"question": "A?", "answer": "B"}]}
    method = Watched(make_llama(), tokenizer=make_tokenizer())
    data = UnlearningDataModule(rows["forget"], rows["retain"])
    Trainer(max_steps=1, accelerator="cpu", **QUIET).fit(method, datamodule=data)
    assert seen[larger] is False
    assert seen[smaller] is True
    assert seen["value"]
    assert seen["logged"] == ["loss", "forget_loss", "retain_loss"]


def test_both_backward_passes_are_scaled_under_16_mixed():
    """The scaler starts at 65536: a gradient that it had not scaled would be lost beside the other."""

    class Watched(GradDiff):
        def on_before_optimizer_step(self, optimizer):
            self.gradients = [weight.grad.clone() for weight in self.policy.parameters()]
            super().on_before_optimizer_step(optimizer)

    found = []
    for precision in (None, MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))):
        method = Watched(make_llama(), tokenizer=make_tokenizer())
        data = UnlearningDataModule(FORGET, RETAIN, batch_size=2, shuffle=False)
        plugins = [] if precision is None else [precision]
        Trainer(max_steps=1, accelerator="cpu", plugins=plugins, **QUIET).fit(method, datamodule=data)
        found.append(method.gradients)
    for one, other in zip(*found, strict=True):
        assert (one - other).norm() < 0.02 * one.norm()


def test_what_a_fit_that_was_broken_off_has_left_is_dropped():
    method = Recorded(make_llama(), tokenizer=make_tokenizer())
    for weight in method.policy.parameters():
        weight.grad = torch.full_like(weight, 1e6)
    method.record("forget_loss", torch.tensor(1e6))
    method.optimizer = {"class_path": "torch.optim.SGD", "init_args": {"lr": 1e-3}}
    Trainer(max_steps=1, accelerator="cpu", **QUIET).fit(method, datamodule=UnlearningDataModule(FORGET, RETAIN))
    assert all(weight.abs().max() < 10 for weight in method.policy.parameters())
    assert abs(method.steps[0]["forget_loss"]) < 100


def test_gradients_do_not_pile_up_where_the_optimizer_step_is_anothers():
    """Lightning's own example of a warm-up overrides it without letting go of the gradients; so do LBFGS's closures."""
    norms = []

    class Own(GradDiff):
        def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
            optimizer.step(closure=optimizer_closure)

        def on_before_optimizer_step(self, optimizer):
            norms.append(sum(weight.grad.norm().item() for weight in self.policy.parameters()))
            super().on_before_optimizer_step(optimizer)

    method = Own(make_llama(), tokenizer=make_tokenizer())
    method.optimizer = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.0}}
    data = UnlearningDataModule(FORGET, RETAIN[:4], batch_size=4)  # whole sets: every step has the same gradient
    Trainer(max_steps=3, accelerator="cpu", **QUIET).fit(method, datamodule=data)
    assert norms == pytest.approx([norms[0]] * 3, rel=1e-4)


def test_strategies_that_forbid_it_get_one_backward_pass():
    for strategy in (FSDPStrategy(), DeepSpeedStrategy.__new__(DeepSpeedStrategy)):
        method = GradDiff(make_llama(), tokenizer=make_tokenizer())
        method._trainer = SimpleNamespace(strategy=strategy)
        assert not method._differentiates_in_parts()
    method._trainer = SimpleNamespace(strategy=SingleDeviceStrategy("cpu"))
    assert method._differentiates_in_parts()


def test_gradients_are_let_go_of_after_each_step_and_accumulate_before_it():
    seen = []

    class Watched(GradDiff):
        def training_step(self, batch, batch_idx):
            seen.append(sum(weight.grad is not None for weight in self.policy.parameters()))
            return super().training_step(batch, batch_idx)

    method = Watched(make_llama(), tokenizer=make_tokenizer())
    data = UnlearningDataModule(FORGET, RETAIN, batch_size=1)
    Trainer(max_epochs=1, accumulate_grad_batches=2, accelerator="cpu", **QUIET).fit(method, datamodule=data)
    weights = len(list(method.policy.parameters()))
    assert seen == [0, weights, 0, weights]


def test_gradients_are_clipped_in_bfloat16_too():
    """Lightning refuses to clip for an optimizer that unscales by itself, which the fused one says of itself."""
    method = GradDiff(make_llama(), tokenizer=make_tokenizer())
    trainer = Trainer(max_steps=2, precision="bf16-mixed", gradient_clip_val=1.0, accelerator="cpu", **QUIET)
    trainer.fit(method, datamodule=UnlearningDataModule(FORGET, RETAIN, batch_size=2))
    assert trainer.global_step == 2
