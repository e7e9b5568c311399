"""What became of a run: from its exit status, what it printed last, and its records."""

from __future__ import annotations

import hashlib
import json
import math
import re
import signal
from contextlib import suppress
from pathlib import Path

from unlearun.errors import UnlearunError
from unlearun.records import Evaluation, evaluation_files
from unlearun.sweep.plan import DIVERGED, DONE, FAILED, Run

LONGEST = 160
TAIL = 65536
DIVERGENCE = 3  # the exit status of a run that its guard has stopped
OWN = "unlearun: error: "


def judge(run: Run, folder: Path | None, exit_status: int, said: str) -> None:
    """Fill in the status of a run that has ended, and what it reached.

    Args:
        run: The run.
        folder: Its run folder, if it left one.
        exit_status: That of its process; negative for a signal.
        said: The end of what it printed.
    """
    if exit_status == DIVERGENCE:
        run.status, run.reason = DIVERGED, exit_reason(exit_status, said).partition(": ")[2]
    elif exit_status != 0:
        run.status, run.reason = FAILED, exit_reason(exit_status, said)
    elif folder is None:
        run.status, run.reason = FAILED, "it left no run folder"
    else:
        try:
            run.status, run.reason = DONE, ""
            _read(run, folder)
        except UnlearunError as error:
            run.status, run.reason = FAILED, _short(str(error))


def exit_reason(exit_status: int, said: str) -> str:
    r"""Say why a process failed.

    Args:
        exit_status: Not 0; negative for a signal.
        said: The end of what it printed.

    >>> exit_reason(2, "Epoch 1\nunlearun: error: there is no file x.json\n")
    'exit status 2: there is no file x.json'
    >>> exit_reason(-9, "")
    'ended by SIGKILL, as systems do when memory runs out'
    """
    lines = [line.strip() for line in re.split(r"[\r\n]+", said) if line.strip()]
    own = [line.removeprefix(OWN) for line in lines if line.startswith(OWN)]
    raised = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Interrupt)\b", line)]
    last = next((found[-1] for found in (own, raised, lines) if found), "")
    if exit_status < 0:
        name = f"signal {-exit_status}"
        with suppress(ValueError):
            name = signal.Signals(-exit_status).name
        return f"ended by {name}{', as systems do when memory runs out' if name == 'SIGKILL' else ''}"
    return _short(f"exit status {exit_status}{f': {last}' if last else ''}")


def tail(log: Path, start: int) -> str:
    """Return the end of what a run has printed.

    Args:
        log: Its log, which may hold earlier attempts.
        start: Where this one began.
    """
    with log.open("rb") as file:
        file.seek(max(start, log.stat().st_size - TAIL))
        return file.read().decode("utf-8", "replace")


def run_folders(home: Path) -> set[Path]:
    """Return the run folders in the ``output_dir`` of a run."""
    return {path for path in home.glob("*/*") if path.name.isdigit() and path.is_dir()}


def newest(folders: set[Path]) -> Path | None:
    """Return the run folder with the greatest number, if there is one."""
    return max(folders, key=lambda path: int(path.name), default=None)


def _read(run: Run, folder: Path) -> None:
    """Take over the values at the end, and model utility at step 0."""
    steps = evaluation_files(folder)
    if not steps or max(steps) == 0:
        raise UnlearunError("it left no evaluation" if not steps else "it took no step")
    after = Evaluation.read(steps[max(steps)])
    before = Evaluation.read(steps[0]) if 0 in steps else None
    quality, utility = (after.summary.get(name) for name in ("forget_quality", "model_utility"))
    if quality is None:
        raise UnlearunError(f"eval/step={after.step}.json holds no forget_quality")
    for name, value in (("forget_quality", quality), ("model_utility", utility)):
        if value is not None and not math.isfinite(value):
            run.status, run.reason = DIVERGED, f"{name} at the end is no finite number"
            return
    run.forget_quality, run.utility_after, run.utility_before = quality, utility, _start(before, after)
    run.measured = _measured(after)


def _start(before: Evaluation | None, after: Evaluation) -> float | None:
    """Return model utility at step 0, if it is made of the same parts as at the end."""
    if before is None or set(before.parts.get("model_utility", [])) != set(after.parts.get("model_utility", [])):
        return None
    value = before.summary.get("model_utility", math.nan)
    return value if math.isfinite(value) else None


def _measured(evaluation: Evaluation) -> str:
    """Return a digest of the parts of both aggregates and of the rows behind them."""
    parts = {name: sorted(evaluation.parts.get(name, [])) for name in ("forget_quality", "model_utility")}
    sets = {name: [found.get("rows"), found.get("digest")] for name, found in _sets(evaluation).items()}
    return hashlib.sha256(json.dumps([parts, sets], sort_keys=True).encode()).hexdigest()[:16]


def _sets(evaluation: Evaluation) -> dict[str, dict[str, object]]:
    sets = evaluation.fingerprint.get("sets")
    return {name: found for name, found in sets.items() if isinstance(found, dict)} if isinstance(sets, dict) else {}


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
