"""Check all runs of a plan before the first one starts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from unlearun.errors import UnlearunError
from unlearun.sweep.plan import Plan, check_keys, fit_arguments
from unlearun.sweep.values import Range, read_space

if TYPE_CHECKING:
    from unlearun.sweep.parsing import Facts

ALL = 200  # so many combinations are parsed in a few seconds; of more, each value once


def check(plan: Plan) -> Facts:
    """Parse the options of all runs as fit would; loads no model.

    Args:
        plan: What is to run.

    Returns:
        What the sweep needs to know of them.

    Raises:
        UnlearunError: A key or value is wrong, or the runs would leave nothing to rank.
    """
    check_keys(plan.arguments, plan.keys)
    return ask([fit_arguments(plan.arguments, values) for values in _samples(plan)], plan.place)


def ask(command_lines: list[list[str]], directory: Path | None = None) -> Facts:
    """Let a child process, which loads torch, find what `parsing.facts` does.

    Args:
        command_lines: Options of fit.
        directory: Where the runs will begin; None: here.

    Raises:
        UnlearunError: What the child says is wrong, or that it broke.
    """
    done = subprocess.run(
        [sys.executable, "-m", "unlearun.sweep.parsing"],
        input=json.dumps(command_lines),
        capture_output=True,
        text=True,
        check=False,
        cwd=directory,
    )
    said = done.stdout.strip().splitlines()
    if done.returncode != 0 or not said:
        why = (done.stderr.strip() or "it said nothing").splitlines()[-1]
        raise UnlearunError(f"the options could not be checked (exit status {done.returncode}): {why}")
    found = json.loads(said[-1])
    if "error" in found:
        raise UnlearunError(found["error"])
    return found["facts"]


def _samples(plan: Plan) -> list[dict[str, str]]:
    """Return combinations in which each value, and each end of a range, occurs."""
    if plan.grid and len(plan.runs) <= ALL:
        return [run.values for run in plan.runs]
    spaces = {key: list(values) for key, values in plan.grid.items()}
    for key, text in plan.search.items():
        space = read_space(key, text)
        spaces[key] = [write(space, space.low), write(space, space.high)] if isinstance(space, Range) else space
    first = {key: values[0] for key, values in spaces.items()}
    return [first, *({**first, key: value} for key, values in spaces.items() for value in values[1:])]


def write(space: Range, value: float) -> str:
    """Write a drawn number as an option, with no more digits than matter.

    >>> write(Range(0.0, 1.0), 0.123456), write(Range(2, 9, whole=True), 3)
    ('0.1235', '3')
    """
    return str(int(value)) if space.whole else f"{value:.4g}"
