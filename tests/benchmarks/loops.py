"""The two loops that training.py compares: ours as users run it, and the plain one, on the same rows.

Both are timed from the end of one step to the end of the next, so nothing between steps is left out.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import plain
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from transformers import AutoConfig, AutoModelForCausalLM

from unlearun.api import find_method
from unlearun.data import Example, UnlearningDataModule
from unlearun.models import LoRA, load_tokenizer
from unlearun.models.loading import without_bars


@dataclass(frozen=True)
class Kind:
    """A method as it is measured.

    Attributes:
        name: The method's.
        options: Its arguments, beside gamma and alpha of 1.
        share: Seconds of the plain loop's step in those of GradDiff's, as measured elsewhere with SmolLM2-135M in
            fp32 on two cores.
    """

    name: str
    options: dict[str, Any]
    share: float


KINDS = {
    "grad_ascent": Kind("grad_ascent", {}, 0.48),
    "grad_diff": Kind("grad_diff", {}, 1.0),
    # Selective: the one that needs it to come below half of the plain loop's memory.
    "grad_diff_kl": Kind("grad_diff", {"retain_loss_type": "KL", "gradient_checkpointing": "selective"}, 1.47),
    "npo": Kind("npo", {"beta": 0.1}, 1.22),
    "dpo": Kind("dpo", {"beta": 0.1}, 1.71),
    "simnpo": Kind("simnpo", {"beta": 4.5, "delta": 0.0, "gamma": 0.125}, 1.07),
    "rmu": Kind("rmu", {"steering_coeff": 6.5, "alpha": 100.0}, 0.69),
}


@dataclass(frozen=True)
class Work:
    """What both loops do.

    Attributes:
        method: A key of `KINDS`.
        model: A folder, or the hub id of a model.
        forget: Rows with question and answer, of all steps in their order.
        retain: Likewise.
        steps: How many, the first included.
        precision: The Trainer's.
        layer: RMU's; None for a quarter of the depth.
        learning_rate: AdamW's.
        checkpointing: Of ours; None for what stands in `KINDS`.
        lora: The rank of adapters that ours trains; None for all that the plain loop does.
    """

    method: str
    model: str
    forget: list[dict[str, Any]]
    retain: list[dict[str, Any]]
    steps: int
    precision: str = "32-true"
    layer: int | None = None
    learning_rate: float = 1e-5
    checkpointing: bool | str | None = None
    lora: int | None = None

    @property
    def batch_size(self) -> int:
        """Rows of each set a step."""
        return len(self.forget) // self.steps

    def options(self) -> dict[str, Any]:
        """Return what the losses take."""
        options = {"gamma": 1.0, "alpha": 1.0, **KINDS[self.method].options}
        if self.method == "rmu":
            depth = AutoConfig.from_pretrained(self.model).get_text_config().num_hidden_layers
            options["target_layer"] = depth // 4 if self.layer is None else self.layer
        return options

    def data(self) -> UnlearningDataModule:
        """Return the rows in their order."""
        return UnlearningDataModule(
            self.forget, self.retain, batch_size=self.batch_size, shuffle=False, overlap="allow"
        )


@dataclass
class Measured:
    """What a loop took, and found.

    Attributes:
        before: Seconds before the first step: copies, caches, the Trainer's own preparations.
        seconds: Of each step, the first included.
        cores: That each step kept busy: with fewer than usual, other programs had the rest.
        peak_gb: Memory from the loaded model on: resident, or allocated on the GPU.
        losses: Of each step, by name.
        rows: The numbers of the rows of each step, by set.
    """

    before: float = 0.0
    seconds: list[float] = field(default_factory=list)
    cores: list[float] = field(default_factory=list)
    peak_gb: float = 0.0
    losses: list[dict[str, float]] = field(default_factory=list)
    rows: list[dict[str, list[int]]] = field(default_factory=list)


class Clock(Callback):
    """Times what runs between its calls, and keeps the losses; ours calls it as a callback of the Trainer."""

    def __init__(self) -> None:
        self.found = Measured()
        self._last = self._worked = 0.0
        self._losses: dict[str, float] = {}

    def start(self) -> None:
        """Count time and memory from here on."""
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        else:
            ctypes.CDLL(None).malloc_trim(0)  # what loading left behind is no part of training
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        self._last, self._worked = now(), time.process_time()

    def begin(self) -> None:
        """End what goes before the first step."""
        self.found.before, _ = self._lap()

    def end(self, losses: dict[str, float]) -> None:
        """End a step."""
        seconds, cores = self._lap()
        self.found.seconds.append(seconds)
        self.found.cores.append(cores)
        self.found.losses.append(losses)

    def stop(self) -> Measured:
        """Return all that was found."""
        if torch.cuda.is_available():
            self.found.peak_gb = torch.cuda.max_memory_allocated() / 1e9
        else:
            lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
            self.found.peak_gb = int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e9
        return self.found

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """See `begin`."""
        if batch_idx == 0:
            self.begin()
        self.found.rows.append({name: part.example_id.tolist() for name, part in batch.items()})

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """See `end`."""
        self.end(self._losses)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Keep the losses of the step in full precision; what is logged is rounded to float32."""
        names = ("loss", "forget_loss", "retain_loss")
        parts: dict[str, torch.Tensor] = pl_module._step_parts  # type: ignore[assignment]
        self._losses = {name: parts[name].item() for name in names if name in parts}

    def _lap(self) -> tuple[float, float]:
        last, worked = self._last, self._worked
        self._last, self._worked = now(), time.process_time()
        seconds = self._last - last
        return seconds, (self._worked - worked) / seconds


def now() -> float:
    """Return the time, once the GPU has done its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def ours(work: Work) -> Measured:
    """Train as users do: a method, a datamodule and a Trainer."""
    options = work.options()
    if work.method == "grad_ascent":
        del options["alpha"]
    if work.checkpointing is not None:
        options["gradient_checkpointing"] = work.checkpointing
    if work.lora is not None:
        options["lora"] = LoRA(r=work.lora)
    method = find_method(KINDS[work.method].name)(work.model, **options)
    settings = {**method.optimizer["init_args"], "lr": work.learning_rate}
    method.optimizer = {**method.optimizer, "init_args": settings}
    method.configure_model()  # now, so that loading is left out; what the method keeps of the start comes with fit
    settle(method.model)
    clock = Clock()
    flags = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            max_steps=work.steps,
            precision=work.precision,  # type: ignore[arg-type]
            accelerator=device().replace("cuda", "gpu"),
            devices=1,
            callbacks=[clock],
            num_sanity_val_steps=0,
            limit_val_batches=0,
            default_root_dir=folder,
            **dict.fromkeys(flags, False),  # type: ignore[arg-type]
        )
        clock.start()
        trainer.fit(method, datamodule=work.data())
        return clock.stop()


def beside(work: Work, rows: list[dict[str, list[int]]]) -> Measured:
    """Train with the plain loop on the rows that ours has taken, by their numbers."""
    data = work.data()
    data.connect(load_tokenizer(work.model), alternate="any" if work.method == "dpo" else None)
    sets = {"forget": data.examples("forget"), "retain": data.examples("retain")}
    steps = [{name: [row(sets[name][i]) for i in numbers] for name, numbers in step.items()} for step in rows]
    if alternates := data.alternates():
        for step, numbers in zip(steps, rows, strict=True):
            step["alternate"] = [row(alternates[i]) for i in numbers["forget"]]
    dtype = torch.float64 if work.precision == "64-true" else torch.float32
    with without_bars():
        model = AutoModelForCausalLM.from_pretrained(work.model, dtype=dtype)
    settle(model)
    clock = Clock()
    clock.start()
    plain.train(
        work.method,
        model.to(device()),
        steps,
        work.options(),
        work.learning_rate,
        work.precision == "bf16-mixed",
        clock.begin,
        clock.end,
    )
    return clock.stop()


def row(example: Example) -> plain.Row:
    """Return the tokens of a row and where its answer begins."""
    return example.input_ids, example.start


def device() -> str:
    """Return where to train."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def settle(model: torch.nn.Module) -> None:
    """Bring both loops to the same start."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # the two would draw differently


def apart(one: dict[str, float], other: dict[str, float], least: float = 1e-3) -> float:
    """Return how far the losses of a step are apart, relative to the second.

    Args:
        one: The losses by name.
        other: Likewise.
        least: The smallest part of the largest loss that a difference is compared with.
    """
    if one.keys() != other.keys():
        sys.exit(f"one loop has {', '.join(one)}, the other {', '.join(other)}")
    # The parts cancel in the sum, and a retain loss is 0 at the start: neither is a measure by itself.
    largest = max(map(abs, other.values()))
    scales = {name: largest if name == "loss" else max(abs(value), least * largest) for name, value in other.items()}
    return max(abs(one[name] - other[name]) / scale for name, scale in scales.items())
