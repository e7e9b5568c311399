"""The options of ``unlearun sweep``, and their help."""

from __future__ import annotations

import argparse
from typing import Any

from unlearun.arguments import OneLineParser
from unlearun.sweep.search import SAMPLERS

USAGE = """unlearun sweep [any option of fit] --grid KEY=A,B,... [--grid ...]
       unlearun sweep [any option of fit] --search KEY=LOW..HIGH [--search ...] --trials N
       unlearun sweep FOLDER [--show]"""
TEXT = """\
Run one fit for each combination of settings, one after the other, and rank them by what they forgot and kept.

Each combination is a process of its own: one that fails or diverges is marked, and the rest go on. After a stop
(Ctrl-C, a kill, the end of a job), the same command, or `unlearun sweep FOLDER`, goes on: what is done is skipped,
what was broken off runs again."""
EPILOG = """\
score:
  the harmonic mean of forget_quality at the end and of what is left of model_utility (its value at the end over that at
  step 0, at most 1). Without model_utility, forget_quality alone.

folder:
  OUTPUT_DIR/sweeps/NAME holds sweep.json (the plan, and the result of each run) and, of each run N, its output N.log
  and its run folder N/METHOD/1, with a model and a checkpoint (none with --trainer.enable_checkpointing false).

examples:
  unlearun sweep --config rmu --grid model.gamma=1,2,5 --grid optimizer.lr=1e-3,1e-2
  unlearun sweep --config simnpo --grid model.beta=1,2.5 --trainer.max_epochs 3       what all runs have in common
  unlearun sweep --grid config=rmu,simnpo,npo                                         methods against each other
  unlearun sweep --config rmu --search optimizer.lr=1e-4..1e-1:log --search model.target_layer=1..3 --trials 20
  unlearun sweep outputs/sweeps/rmu-1 --show                                          the ranking so far
  unlearun sweep ... --jobs 8 --launcher "srun -N1 -n1 --gpus=1"                      on a cluster, 8 at a time
  unlearun sweep ... --jobs 2 --launcher "env CUDA_VISIBLE_DEVICES={slot}"            on two GPUs of one machine

All options of fit:  unlearun fit --help        Of a method:  unlearun fit --model RMU --help
"""


HELP = {
    "grid": "values of an option of fit; of all --grid together, every combination runs. Commas in brackets or quotes "
    "stay: model.x=[a,b],[c]",
    "search": "a range to draw from (1e-5..1e-3:log by factors, 2..8 whole numbers, 0.1..1 any), or values (a,b,c); "
    "needs optuna: pip install 'unlearun[sweep]'",
    "trials": "with --search: how many combinations are drawn in all; a greater number goes on with the same search",
    "sampler": "with --search: tpe (the default) learns from what it has seen, random does not",
    "name": "what the folder is called (default: the method and a number); a name that is taken goes on there, if it "
    "is the same sweep",
    "jobs": "how many run at a time (default 1)",
    "launcher": "what stands in front of each run's command, such as srun with its options; {slot} in it becomes 0 to "
    "JOBS-1, another for each run at work",
    "show": "with FOLDER: print the ranking of what has ended, and run nothing",
    "retry": "run what has failed or diverged again",
}


def parser() -> argparse.ArgumentParser:
    """Return what reads the options; those of fit it leaves over."""
    made = OneLineParser(
        "unlearun sweep",
        usage=USAGE,
        description=TEXT,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    kinds: dict[str, dict[str, Any]] = {
        "grid": {"action": "extend", "nargs": "+", "default": [], "metavar": "KEY=A,B"},
        "search": {"action": "extend", "nargs": "+", "default": [], "metavar": "KEY=LOW..HIGH"},
        "trials": {"type": int, "metavar": "N"},
        "sampler": {"choices": SAMPLERS},
        "name": {},
        "jobs": {"type": int, "metavar": "N"},
        "launcher": {"metavar": "COMMAND"},
        "show": {"action": "store_true"},
        "retry": {"action": "store_true"},
    }
    for name, kind in kinds.items():
        made.add_argument(f"--{name}", help=HELP[name], **kind)
    return made
