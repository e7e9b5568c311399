"""Run folders as a fit leaves them, made by hand: no model, no training."""

from __future__ import annotations

import math
from pathlib import Path

import yaml
from torch.utils.tensorboard import SummaryWriter

from unlearun.records import Evaluation, summarise

VERSIONS = {"unlearun": "0.1.0", "torch": "2.13.0", "transformers": "5.24.0", "lightning": "2.6.6"}
QUESTIONS = {
    "forget": [(f"Where was author {i} born?", f"Author {i} was born in town {i}.") for i in range(30)],
    "retain": [(f"What does baker {i} bake?", f"Baker {i} bakes bread {i}.") for i in range(12)],
    "holdout": [(f"Where was stranger {i} born?", f"Stranger {i} was born in port {i}.") for i in range(30)],
}


def evaluation(step: int, forget: float, retain: float, answers: dict[str, str] | None = None, **facts) -> Evaluation:
    """What an evaluation finds of a model that gives a token of the sets' answers these probabilities, more or less."""
    levels = {"forget": forget, "retain": retain, "holdout": 0.1}
    examples: dict[str, dict[str, dict]] = {}
    for name, rows in QUESTIONS.items():
        examples[name] = {}
        for i, (question, answer) in enumerate(rows):
            logprob = math.log(levels[name]) * (1 + 0.02 * (i % 7))
            right = math.exp(logprob)
            said = (answers or {}).get(name) or (answer if right > 0.5 else "I do not know that.")
            scores = {"probability": right, "exact_memorization": right, "extraction_strength": right**2}
            scores |= {"truth_ratio": 1.2 - right, "rougeL_recall": float(said == answer), "mia": logprob}
            scores |= {"logprob": 8 * logprob, "tokens": 8.0}
            examples[name][str(i)] = {"question": question, "answer": answer, "generation": said, **scores}
    sets = {
        name: {"role": name, "source": f"{name}.json", "rows": len(rows), "digest": f"digest-of-{name}"}
        for name, rows in examples.items()
    }
    fingerprint = {"method": "NPO", "model": "org/tiny", "precision": "32-true", "dtype": "float32", **facts}
    found = Evaluation(step, examples=examples, fingerprint={"versions": VERSIONS, "sets": sets, **fingerprint})
    summarise(found)
    return found


def make_run(folder: Path, *evaluations: Evaluation, losses: bool = True, **config) -> Path:
    """Write a run folder with these evaluations."""
    for one in evaluations:
        one.write(folder / "eval" / f"step={one.step}.json")
    settings = {
        "seed_everything": 0,
        "model": {"class_path": "unlearun.NPO", "init_args": {"model": "org/tiny", "beta": 0.1, **config}},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-5}},
        "output_dir": str(folder.parent),
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    if losses:
        writer = SummaryWriter(str(folder))
        for step in range(20):
            writer.add_scalar("train/forget_loss", 2.0 - 0.05 * step, step)
            writer.add_scalar("train/retain_loss", 0.5 + 0.01 * step, step)
            writer.add_scalar("train/loss", 2.5, step)
            writer.add_scalar("forget/probability", 0.5, step)
        writer.close()
    return folder


def good_run(folder: Path, **config) -> Path:
    """Forgot well, and kept the rest."""
    return make_run(folder, evaluation(0, 0.95, 0.95), evaluation(10, 0.4, 0.93), evaluation(20, 0.12, 0.9), **config)


def bad_run(folder: Path, **config) -> Path:
    """Forgot all and everything."""
    return make_run(folder, evaluation(0, 0.95, 0.95), evaluation(20, 0.02, 0.05), **config)
