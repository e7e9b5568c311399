"""Which combination is best, and how that is shown.

The score of a run is the harmonic mean of

- ``forget_quality`` at the end, which is 0 to 1, and
- what is left of ``model_utility``: its value at the end over that at step 0, and 1 where it has risen. Unlearning is
  to keep what a model can do; a run that also trained it further must not make up for what it did not forget.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from shlex import join

import numpy as np

from unlearun.records.aggregates import harmonic_mean
from unlearun.records.results import WIDTH, number, text_table
from unlearun.sweep.folder import Sweep
from unlearun.sweep.plan import DONE, RUNNING, Run, fit_arguments


def kept(run: Run) -> float | None:
    """Return model utility at the end over that at step 0; None where one is missing, or that at step 0 is 0."""
    if run.utility_before is None or run.utility_after is None or run.utility_before <= 0:
        return None
    return run.utility_after / run.utility_before


def score(run: Run) -> float | None:
    """Return the harmonic mean of forget quality and what is left of model utility, at most 1; None without either."""
    share = kept(run)
    if run.forget_quality is None or share is None:
        return None
    return float(harmonic_mean(np.array([run.forget_quality, min(1.0, share)])))


def ranked(runs: Sequence[Run]) -> list[Run]:
    """Return the runs that can be compared, the best first: by score, and those without one behind, by forget quality.

    Among equals, the one that forgot more, then the one that kept more, stands first.
    """

    def place(run: Run) -> tuple[bool, float, float, float, int]:
        value = score(run)
        return (value is None, -(value or 0.0), -(run.forget_quality or 0.0), -(kept(run) or 0.0), run.number)

    return sorted((run for run in runs if run.status == DONE), key=place)


def line(sweep: Sweep, run: Run) -> str:
    """Say in one line what became of a run."""
    said = f"{run.number}/{sweep.plan.total} {run.label}: "
    if run.status != DONE:
        return f"{said}{run.status}, {run.reason} (see {sweep.log(run)}), {duration(run.seconds)}"
    share, value = kept(run), score(run)
    parts = [f"forget_quality {number(run.forget_quality or 0.0)}"]
    if run.utility_after is not None:
        of_start = f" ({number(share)} of the start)" if share is not None else ""
        parts.append(f"model_utility {number(run.utility_after)}{of_start}")
    if value is not None:
        parts.append(f"score {number(value)}")
    return f"{said}{', '.join([*parts, duration(run.seconds)])}"


def report(sweep: Sweep) -> str:
    """Return the ranking of what has ended: a table, what to know about it, and the command of the best."""
    plan, best = sweep.plan, ranked(sweep.plan.runs)
    others = [run for run in plan.runs if run.ended and run.status != DONE]
    ended, running = len(best) + len(others), sum(run.status == RUNNING for run in plan.runs)
    if not ended:
        return f"no run of {sweep.folder} has ended yet"
    rows = [[*_cells(run, plan.keys), run.folder] for run in best]
    rows += [[*_cells(run, plan.keys), f"{run.status}: {run.reason}; see {run.number}.log"] for run in others]
    utility = "model_utility (start -> end)"
    header = ["run", *plan.keys, "forget_quality", utility, "of the start", "score", "run folder"]
    if not any(run.utility_after is not None for run in best):  # columns of dashes help nobody
        drop = {header.index(name) for name in (utility, "of the start", "score")}
        header, *rows = [[cell for at, cell in enumerate(row) if at not in drop] for row in [header, *rows]]
    lines = [text_table(header, rows, texts=1), ""]
    if ended < plan.total:
        going = f", {running} {'is' if running == 1 else 'are'} at work" if running else ""
        lines.append(f"{ended} of {plan.total} runs have ended{going}; go on with: {sweep.command}")
    lines += [textwrap.fill(note, WIDTH, subsequent_indent="  ") for note in notes(best)]
    if not best:
        return "\n".join([*lines, f"no run can be ranked; {_look(others)}"])
    again = join(["unlearun", "fit", *fit_arguments(plan.arguments, best[0].values)])
    where = "" if plan.directory == os.getcwd() else f", in {plan.directory}"
    return "\n".join([*lines, f"best: {sweep.folder / best[0].folder}", f"run it again{where}: {again}"])


def notes(best: Sequence[Run]) -> list[str]:
    """Say what a reader of a ranking must know.

    Args:
        best: The runs in it, the best first.
    """
    said = []
    without = [run for run in best if score(run) is None]
    if without and len(without) == len(best):
        why = "model_utility was not measured" if best[0].utility_after is None else "model_utility has no start"
        said.append(f"ranked by forget_quality alone: {why} (it needs a retain or utility set, and a value at step 0)")
    elif without:
        said.append(
            f"without a score, for model_utility at step 0 or at the end is missing, and so ranked behind, by "
            f"forget_quality: {_numbers(without)}"
        )
    other = [run for run in best if run.measured != best[0].measured]
    if other:
        said.append(
            f"not comparable with the best, for other rows or other parts of an aggregate were measured: "
            f"{_numbers(other)}"
        )
    if best and not (best[0].forget_quality if len(without) == len(best) else score(best[0])):
        said.append(
            "every score is 0: nothing was forgotten, or nothing kept; see 'forgets too little' and 'forgets too much' "
            "under Troubleshooting in the README"
        )
    return said


def duration(seconds: float | None) -> str:
    """Write how long something took.

    >>> duration(18.2), duration(400), duration(9000), duration(None)
    ('18 s', '7 min', '2.5 h', '-')
    """
    if seconds is None:
        return "-"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _cells(run: Run, keys: Sequence[str]) -> list[str]:
    before, after = (_or_dash(value) for value in (run.utility_before, run.utility_after))
    values = [run.values.get(key, "-") for key in keys]
    numbers = [_or_dash(run.forget_quality), f"{before} -> {after}", _or_dash(kept(run)), _or_dash(score(run))]
    return [str(run.number), *values, *(numbers if run.status == DONE else ["-"] * 4)]


def _or_dash(value: float | None) -> str:
    return "-" if value is None else number(value)


def _numbers(runs: Sequence[Run]) -> str:
    return f"run{'s' if len(runs) > 1 else ''} {', '.join(str(run.number) for run in runs)}"


def _look(runs: Sequence[Run]) -> str:
    return "run again what has failed with --retry, once its reason is gone" if runs else "none has ended"
