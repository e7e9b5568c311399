"""What FSDP1 and DeepSpeed, which are for GPUs, can be seen to do without one, and what is refused in a line."""

from __future__ import annotations

from contextlib import nullcontext
from importlib.util import find_spec
from types import SimpleNamespace

import families
import fits
import pytest
from conftest import FORGET, RETAIN, make_llama, make_tokenizer
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy
from processes import in_two_processes
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from transformers import LlamaForCausalLM

from unlearun import NPO, RMU, FineTune, SimNPO, TaskVector, UnlearningDataModule
from unlearun.errors import UnlearunError
from unlearun.methods import UnlearningMethod
from unlearun.methods.strategies import check, hides_weights, prepare
from unlearun.models import LoRA, layer_classes

CASES = [
    ("SimNPO", {"beta": 0.1}),
    ("RMU", {"target_layer": [0, 1], "adaptive": True, "alpha": 3.0, "reference_way": "copy"}),
    ("NPO", {"lora": {"r": 4}, "retain_loss_type": "KL"}),
]


def attached(method, strategy, **settings):
    """Let a method believe that a Trainer with a strategy runs it."""
    method._trainer = SimpleNamespace(
        strategy=strategy, gradient_clip_val=None, gradient_clip_algorithm=None, world_size=2, **settings
    )
    return method


@pytest.mark.parametrize("name", families.FAMILIES)
def test_fsdp1_wraps_the_decoder_layers_of_every_family(name):
    model = families.make_family(name)
    strategy = FSDPStrategy()
    prepare(attached(SimNPO(model, tokenizer=make_tokenizer()), strategy), None)
    policy = strategy.kwargs["auto_wrap_policy"]
    assert isinstance(policy, ModuleWrapPolicy)
    wrapped = [module for module in model.modules() if policy(module, recurse=False, nonwrapped_numel=0)]
    assert len(wrapped) == families.LAYERS
    assert {type(module).__name__ for module in wrapped} == {cls.__name__ for cls in layer_classes(model)}
    assert not any(inner is not outer and inner in wrapped for outer in wrapped for inner in outer.modules())


def test_a_wrapping_policy_of_the_user_s_own_stays():
    strategy = FSDPStrategy(auto_wrap_policy={type(make_llama().model.norm)})
    own = strategy.kwargs["auto_wrap_policy"]
    prepare(attached(SimNPO(make_llama(), tokenizer=make_tokenizer()), strategy), None)
    assert strategy.kwargs["auto_wrap_policy"] is own


def test_two_processes_of_them_give_the_losses_of_one():
    """On a CPU, to which they can be talked; all in one test, for it is processes that cost."""
    deepspeed = ["deepspeed_stage_2", "deepspeed_stage_3"] if find_spec("deepspeed") else []
    pairs = [(fits.Fit(*case, 4, strategy=name), fits.Fit(*case)) for name in ("fsdp1", *deepspeed) for case in CASES]
    # DeepSpeed divides by the accumulation, as Lightning has before. Six batches an epoch are two steps of six rows.
    case = (*CASES[0], 6, 1, 0.5)
    pairs += [(fits.Fit(*CASES[0], 1, 3, 0.5, name), fits.Fit(*case)) for name in deepspeed]
    first, second = in_two_processes(fits.run_all, [[], []], [shared for shared, _ in pairs])
    alone = {name: fits.run(fit).steps for name, fit in {str(fit): fit for _, fit in pairs}.items()}
    for (shared, fit), *ranks in zip(pairs, first[1], second[1], strict=True):
        expected = alone[str(fit)]
        assert expected[0] != expected[-1]
        for steps, _ in ranks:
            for i, (found, step) in enumerate(zip(steps, expected, strict=True)):
                assert found == pytest.approx(step, rel=1e-4 if i else 1e-5, abs=1e-6), shared


@pytest.mark.parametrize(
    ("method", "settings", "told"),
    [
        (NPO, {}, "the loss of NPO reads the model as it was, which FSDPStrategy cannot put back; keep a whole copy"),
        (RMU, {"target_layer": 1}, "the loss of RMU reads"),
        (SimNPO, {"clip": 1.0}, "FSDPStrategy cannot clip a gradient by its length"),
    ],
)
def test_what_fsdp1_cannot_do_is_refused(method, settings, told):
    clip = settings.pop("clip", None)
    made = attached(method(make_llama(layers=3), tokenizer=make_tokenizer(), **settings), FSDPStrategy())
    made._trainer.gradient_clip_val = clip
    with pytest.raises(UnlearunError, match=told):
        check(made)


def test_tied_embeddings_that_are_frozen_are_refused_on_one_device():
    """There torch's FSDP1 shares nothing, and fails on a weight that two modules have."""
    config = make_llama().config
    config.tie_word_embeddings = True
    for method, refused in ((RMU, True), (SimNPO, False)):
        made = attached(
            method(
                LlamaForCausalLM(config), tokenizer=make_tokenizer(), **({"reference_way": "copy"} if refused else {})
            ),
            FSDPStrategy(),
        )
        check(made)
        made._trainer.world_size = 1
        with pytest.raises(UnlearunError, match="leave out --trainer") if refused else nullcontext():
            check(made)


def test_adapters_that_a_strategy_hides_cannot_be_turned_round():
    made = attached(TaskVector(make_llama(), tokenizer=make_tokenizer(), lora=LoRA(r=2)), FSDPStrategy())
    with pytest.raises(UnlearunError, match="FSDPStrategy hides the adapters that TaskVector turns round"):
        made.check_fit()


def test_a_task_vector_is_taken_away_once_the_last_step_is_done(monkeypatch):
    """DeepSpeed asks for a step at each of its micro-batches, and counts the step at the last of them alone."""
    strategy = SimpleNamespace(handles_gradient_accumulation=True)
    made = attached(TaskVector(make_llama(), tokenizer=make_tokenizer()), strategy, accumulate_grad_batches=3)
    made._trainer.estimated_stepping_batches = 2
    taken_away = []
    monkeypatch.setattr(UnlearningMethod, "optimizer_step", lambda *_: None)
    monkeypatch.setattr(made, "finish", lambda: taken_away.append(made._trainer.fit_loop.batch_idx))
    for batch in range(6):
        made._trainer.global_step, made._trainer.fit_loop = batch // 3, SimpleNamespace(batch_idx=batch)
        made.optimizer_step(0, batch, None)
    assert taken_away == [5]


def test_what_fsdp1_can_do_is_not():
    for settings in ({"reference_way": "copy"}, {"lora": LoRA(r=2)}):
        check(attached(NPO(make_llama(), tokenizer=make_tokenizer(), **settings), FSDPStrategy()))
    check(attached(FineTune(make_llama(), tokenizer=make_tokenizer()), FSDPStrategy()))
    check(attached(NPO(make_llama(), tokenizer=make_tokenizer()), DDPStrategy()))
    assert not hides_weights(DDPStrategy())


def test_tensor_parallel_shares_are_refused():
    """Lightning's own ModelParallelStrategy makes them unless told otherwise."""
    method = attached(SimNPO(make_llama(), tokenizer=make_tokenizer()), None)
    mesh = {"tensor_parallel": SimpleNamespace(size=lambda: 2)}
    method._device_mesh = mesh
    with pytest.raises(UnlearunError, match="tensor_parallel_size is 2"):
        prepare(method, None)


def test_altpo_makes_nothing_up_under_fsdp1():
    from unlearun import AltPO

    method = AltPO(make_llama(), tokenizer=make_tokenizer(), lora=LoRA(r=2))
    strategy = FSDPStrategy()
    attached(method, strategy, ckpt_path=None)
    strategy.broadcast = lambda value: value
    data = UnlearningDataModule(FORGET, RETAIN)
    data.connect(make_tokenizer(), ("forget", "retain"), "plausible")
    method._trainer.datamodule = data
    with pytest.raises(UnlearunError, match="cannot make up other answers"):
        method.make_ready()
