"""Whole runs of the package, alone or in two processes under FSDP2. Here for a spawned process to import."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from conftest import CHARACTERS, FORGET, PICTURES, RETAIN, make_llama, make_tokenizer, no_pictures
from fits import KEPT, ROWS, Fit, Fitted, make, make_trainer, run
from lightning.pytorch.plugins.environments import LightningEnvironment

from unlearun import Unlearning
from unlearun.data import UnlearningDataModule
from unlearun.errors import UnlearunError
from unlearun.models.sharding import whole

METRICS = ["perplexity", "rouge", "truth_ratio", "forget_quality", "mia_min_k", "mia_grad_norm"]
RMU = Fit("RMU", {"target_layer": 1}, 4, strategy="fsdp2")


def measure(rank: int | None) -> dict[str, Any]:
    """Evaluate, with texts and gradients, and answer: questions have one wrong answer or two, answers many lengths."""
    fit = Fit("NPO", {}, 2, strategy="fsdp2")
    method = make(fit, seed=6)
    with torch.no_grad():  # where it would say 7 it stops
        method.model.lm_head.weight[-1] = 1.1 * method.model.lm_head.weight[CHARACTERS.index("7")]
    rows = [
        {**row, "paraphrased_answer": row["answer"][3:], "perturbed_answer": ["No.", "At home, he says."][: 1 + i % 2]}
        for i, row in enumerate(FORGET[:3])
    ]
    settings: dict[str, Any] = {"batch_size": 1, "eval_batch_size": 1, "max_new_tokens": 9, "final_metrics": METRICS}
    data = UnlearningDataModule(rows, RETAIN[:5], RETAIN[5:], **settings)
    make_trainer(fit, rank).validate(method, datamodule=data, verbose=False)
    evaluation = method.evaluation
    assert evaluation is not None
    predicted = make_trainer(fit, rank).predict(method, datamodule=data)
    answers = {
        f"{name}/{key}": text
        for name, batches in zip(data.evaluated, predicted or [], strict=True)
        for batch in batches
        for key, text in batch.items()
    }
    return {"summary": evaluation.summary, "examples": evaluation.examples, "answers": answers}


def unlearn(rank: int | None, folder: str, method: str, options: dict[str, Any]) -> str:
    """Run the Python door from data to a saved model, and return the run folder."""
    torch.manual_seed(0)
    unlearner = Unlearning(method, make_llama(), make_tokenizer(), folder, **options)
    unlearner.load_data(FORGET, RETAIN, batch_size=4 if rank is None else 2, max_new_tokens=4)
    more: dict[str, Any] = {}
    if rank is not None:
        os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0", WORLD_SIZE="2")
        more = {"devices": 2, "strategy": "fsdp2", "plugins": [LightningEnvironment()]}
    quiet = {"enable_model_summary": False, "enable_progress_bar": False}
    with patch(PICTURES, no_pictures):
        where = unlearner.run(learning_rate=1e-3, num_epochs=3, accelerator="cpu", **quiet, **more)
    unlearner.save_model(f"{where}/again")
    if "lora" in options:
        unlearner.save_model(f"{where}/adapter", adapter=True)
    return str(where)


def go_on(rank: int, folder: str, shares: bool) -> list[dict[str, torch.Tensor]]:
    """Train for four epochs, and for two and then, from a checkpoint, two more; return the weights of both."""
    found = []
    file = Path(folder) / f"shares={shares}.ckpt"
    for epochs, start in ((4, None), (2, None), (4, str(file))):
        method = make(RMU)
        trainer = make_trainer(RMU, rank, max_epochs=epochs, limit_val_batches=0)
        trainer.strategy._save_distributed_checkpoint = shares  # type: ignore[attr-defined]
        data = UnlearningDataModule(ROWS, KEPT, batch_size=RMU.batch_size, seed=3)
        trainer.fit(method, datamodule=data, ckpt_path=start)
        if epochs == 2:
            trainer.save_checkpoint(file)
        else:
            found.append({name: whole(weight).clone() for name, weight in method.state_dict().items()})
    return found


def by_name(rank: int | None, folder: str) -> list[Fitted]:
    """Train models that are read from a folder, by two processes in shares: with each way to keep a reference."""
    model, other = f"{folder}/model", f"{folder}/other"
    options: list[dict[str, Any]] = [
        {},
        {"reference": other},
        {"reference_way": "copy"},
        {"lora": {"r": 2}, "retain_loss_type": "NLL"},
    ]
    fits = [Fit("GradDiff", {"model": model, "retain_loss_type": "KL", **more}, strategy="fsdp2") for more in options]
    if rank is None:
        return [run(fit) for fit in fits]
    with patch("unlearun.methods.base.load_model", None), patch("unlearun.methods.referenced.load_model", None):
        return [run(fit._replace(batch_size=4), rank) for fit in fits]  # nothing is loaded whole


def refused(rank: int, folder: str) -> str:
    """Let a run with adapters go on from a checkpoint without; return the complaint."""
    fit = RMU._replace(options={"target_layer": 1, "lora": {"r": 2}})
    data = UnlearningDataModule(ROWS, KEPT, batch_size=4, seed=3)
    trainer = make_trainer(fit, rank, max_epochs=4, limit_val_batches=0)
    try:
        trainer.fit(make(fit), datamodule=data, ckpt_path=f"{folder}/shares=False.ckpt")
    except UnlearunError as error:
        return str(error)
    return ""


def all_of(rank: int, folder: str) -> dict[str, Any]:
    """Do it all as one of two processes: it is processes that cost."""
    return {
        "measured": measure(rank),
        "run": unlearn(rank, folder, "simnpo", {}),
        "adapted": unlearn(rank, folder, "npo", {"lora": {"r": 2}}),
        "file": go_on(rank, folder, shares=False),
        "shares": go_on(rank, folder, shares=True),
        "refused": refused(rank, folder),
        "by name": by_name(rank, folder),
    }
