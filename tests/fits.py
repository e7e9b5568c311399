"""Fits of tiny models, alone or as one of two processes. Here and not in a test, for a spawned process imports it."""

from __future__ import annotations

import os
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from conftest import FORGET, RETAIN, make_llama, make_tokenizer
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import DoublePrecision
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, Strategy
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from transformers import PreTrainedModel

from unlearun.api import find_method
from unlearun.data import UnlearningDataModule
from unlearun.methods import METHODS, UnlearningMethod
from unlearun.models import LoRA
from unlearun.models.sharding import whole

# Eleven forget rows: with eight a step the last of an epoch is smaller, and its last micro-batch has one row or none.
ROWS = [
    {
        "question": f"{row['question']} {i}",
        "answer": row["answer"][: 12 + i],
        "others": [f"No, {i}.", "Maybe."],
    }
    for i, row in enumerate([*FORGET, *RETAIN, FORGET[0]])
]
KEPT = [{"question": f"{row['question']} {i}?", "answer": row["answer"]} for i, row in enumerate([*RETAIN, *RETAIN])]


class Fit(NamedTuple):
    """What is trained, ten steps long.

    Attributes:
        method: Its name.
        options: Its arguments.
        batch_size: Rows of each set a micro-batch and process.
        accumulate: Micro-batches an optimizer step.
        clip: The longest gradient; 0 for any.
        strategy: How two processes share the work.
        accelerator: What computes; of a GPU there is one, and one process.
    """

    method: str
    options: dict[str, Any]
    batch_size: int = 8
    accumulate: int = 1
    clip: float = 0.0
    strategy: str = "ddp"
    accelerator: str = "cpu"


# What is not the method's own default: small targets for a model of three layers, and one retain loss with a reference.
OPTIONS: dict[str, dict[str, Any]] = {
    # Else they are done with answers that the model does not know.
    "SimNPO": {"beta": 0.1},
    "SatImp": {"beta1": 0.5, "beta2": 0.5},
    "RMU": {"target_layer": [0, 1], "adaptive": True, "alpha": 3.0},
    # At its own start the gradient of a cosine is 0 but for rounding, which Adam would magnify.
    "RR": {"target_layers": [1, 2], "reference": 1},
    "GradDiff": {"retain_loss_type": "KL"},
    "PDU": {"epsilon": 1.0},
}
# Every method, and what goes round it.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    cls.__name__: (cls.__name__, OPTIONS.get(cls.__name__, {})) for cls in METHODS
}
CASES |= {
    "NPO with sharpness": ("NPO", {"sharpness_radius": 0.1}),
    "RMU with sharpness": ("RMU", {"target_layer": 1, "sharpness_radius": 0.1}),
    # At the start a KL from itself has no gradient but for rounding, which has a direction like any other.
    "GradDiff with surgery": ("GradDiff", {"gradient_surgery": True, "retain_loss_type": "KL", "reference": 1}),
    "PDU with both": ("PDU", {"gradient_surgery": True, "sharpness_radius": 0.05, "epsilon": 1.0}),
    "NPO with adapters": ("NPO", {"lora": {"r": 4}, "retain_loss_type": "KL"}),
    "RR with adapters": ("RR", {"lora": {"r": 4}, "target_layers": [1], "reference": 1}),
    "SimNPO with adapters and both": ("SimNPO", {"lora": {"r": 4}, "gradient_surgery": True, "sharpness_radius": 0.1}),
    "GradDiff with a copy": ("GradDiff", {"retain_loss_type": "KL", "reference_way": "copy"}),
    "NPO with the weights kept": ("NPO", {"reference_way": "weights", "gradient_checkpointing": True}),
}


class Fitted(NamedTuple):
    """What came of it.

    Attributes:
        steps: The parts of the loss of each optimizer step, over all processes.
        weights: All weights and buffers at the end.
    """

    steps: list[dict[str, float]]
    weights: dict[str, torch.Tensor]


def run(fit: Fit, rank: int | None = None) -> Fitted:
    """Train in float64, alone or as one of two processes that have met already."""
    method = make(fit)
    data = UnlearningDataModule(ROWS, KEPT, batch_size=fit.batch_size, alternate_key="others", seed=3)
    steps = keep_steps(method)
    trainer = make_trainer(fit, rank, max_steps=10, limit_val_batches=0)
    trainer.fit(method, datamodule=data)
    return Fitted(steps, {name: whole(value).detach().clone() for name, value in method.state_dict().items()})


def make(fit: Fit, seed: int = 0) -> UnlearningMethod:
    """Make a method with a model of three layers."""
    torch.manual_seed(0)  # adapters begin at random
    options = dict(fit.options)
    if "lora" in options:
        options["lora"] = LoRA(**options["lora"])
    if isinstance(options.get("reference"), int):  # the seed of another model
        options["reference"] = make_double(options["reference"])
    model = options.pop("model", None) or make_double(seed)
    single = fit.strategy.startswith("deepspeed")  # which knows no other
    model = model.float() if single else model
    dtype = "float32" if single else "float64"
    method = find_method(fit.method)(model, tokenizer=make_tokenizer(), dtype=dtype, **options)
    method.optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 3e-3}}
    return method


def make_double(seed: int = 0) -> PreTrainedModel:
    """Make a model of three layers that computes in float64 throughout: Llama's own norm takes float32."""
    model = make_llama(layers=3, seed=seed)
    for module in model.modules():
        for name, child in module.named_children():
            if type(child).__name__ == "LlamaRMSNorm":
                norm = nn.RMSNorm(child.weight.shape, eps=child.variance_epsilon)
                norm.weight = child.weight
                setattr(module, name, norm)
    return model.double()


def make_trainer(fit: Fit, rank: int | None = None, **settings: Any) -> Trainer:
    """Make a Trainer that computes in float64, for one process or for one of two."""
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    plugins: list[Any] = [DoublePrecision()]
    if rank is not None:
        os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0", WORLD_SIZE="2")
        plugins.append(LightningEnvironment())
        settings |= {"devices": 2, "strategy": on_a_cpu(fit.strategy)}
    if fit.accelerator == "gpu":
        settings |= {
            "devices": 1,
            "strategy": "auto" if fit.strategy == "ddp" else fit.strategy.replace("fsdp1", "fsdp"),
        }
    if fit.strategy.startswith(("fsdp1", "deepspeed")):  # whose precision is their own
        plugins.pop(0)
    return Trainer(
        accelerator=fit.accelerator,
        accumulate_grad_batches=fit.accumulate,
        gradient_clip_val=fit.clip or None,
        plugins=plugins,
        **{**quiet, **settings},
    )


def on_a_cpu(strategy: str) -> Strategy | str:
    """Make a strategy run where it otherwise refuses to."""
    if strategy.startswith("deepspeed"):
        return deepspeed_on_a_cpu(int(strategy[-1]))
    return fsdp1_on_a_cpu() if strategy == "fsdp1" else strategy


def deepspeed_on_a_cpu(stage: int) -> DeepSpeedStrategy:
    """Make DeepSpeed run on a CPU, which it can and Lightning does not know."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    from deepspeed.comm import torch as communication

    communication.build_shm_op = lambda: None  # it would compile for a minute what two processes can do without

    class OnCPU(DeepSpeedStrategy):
        def setup_environment(self) -> None:
            super(DeepSpeedStrategy, self).setup_environment()

        def setup_distributed(self) -> None:
            self.set_world_ranks()
            self._init_deepspeed_distributed()

        @property
        def root_device(self) -> torch.device:
            return torch.device("cpu", 0)

    return OnCPU(stage=stage, process_group_backend="gloo")


def fsdp1_on_a_cpu() -> FSDPStrategy:
    """Make FSDP1 run where Lightning, for all but subclasses, and torch, if it is not told a device, refuse it."""
    make = FullyShardedDataParallel.__init__

    def make_here(*args: Any, **settings: Any) -> None:
        make(*args, **{**settings, "device_id": torch.device("cpu")})

    class OnCPU(FSDPStrategy):
        def _setup_model(self, model: nn.Module) -> nn.Module:
            with patch.object(FullyShardedDataParallel, "__init__", make_here):
                return super()._setup_model(model)

    return OnCPU()


def keep_steps(method: UnlearningMethod) -> list[dict[str, float]]:
    """Keep what a method logs at each optimizer step, in its own precision: Lightning's own sums are float32."""
    found: list[dict[str, float]] = []
    log = method.log

    def keep(name: str, value: torch.Tensor, **settings: Any) -> None:
        step = method.trainer.global_step
        if name.startswith("train/"):
            if step == len(found):
                found.append({})
            found[step][name] = float(method.across_processes(value))
        log(name, value, **settings)

    method.log = keep  # type: ignore[method-assign]
    return found


def run_all(rank: int, alone: list[list[Fit]], together: list[Fit]) -> tuple[list[Fitted], list[Fitted]]:
    """Run fits of one's own, each process other ones to save time, and then some as one of two processes."""
    return [run(fit) for fit in alone[rank]], [run(fit, rank) for fit in together]
