"""What a reader must know before any number: what went wrong, and what makes the numbers mean less."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from unlearun.records import Evaluation, better, find, meaning, role_of
from unlearun.records.keeping import LEAST_KEPT, above_chance, chance_of
from unlearun.report.attacks import came_back, outdated
from unlearun.report.reported_run import ReportedRun
from unlearun.report.values import lines
from unlearun.shipped import is_shipped

# Below this share of what it was before, what should be kept is lost: the guard's own floor.
COLLAPSED = 0.3
# From this forget_quality on a model is as one that never saw the rows.
HARDLY_KNOWN = 0.6
# What tells whether forget rows are still known; answers of the model's own, which may merely be held back, tell it
# where nothing else does.
FORGETTING = ("extraction_strength", "exact_memorization", "probability", "choice_accuracy")
SAYING = ("verbatim_memorization", "rouge", "rougeL_f1_unstemmed")


def findings(run: ReportedRun) -> list[str]:
    """Say what is wrong with a run or its numbers.

    Args:
        run: The run.

    Returns:
        One sentence a finding, the worst first; none where nothing was found.
    """
    attacked = [said for said in (came_back(run), outdated(run)) if said]
    found = [*_collapsed(run), *attacked, *_over_unlearned(run), *_under_unlearned(run)]
    return [*_unfinished(run), *_never_known(run), *_not_forgotten(run), *found, *_doubts(run)]


def findings_together(runs: list[ReportedRun]) -> list[str]:
    """Say what keeps the numbers of several runs from being compared, and what is wrong with each.

    Args:
        runs: At least two.

    Returns:
        One sentence a finding; what is true of several runs is said once, of all of them.
    """
    said: dict[str, list[str]] = {}
    for run in runs:
        for one in findings(run):
            said.setdefault(one, []).append(run.name)
    return [*_unlike(runs), *_other_parts(runs), *(f"{', '.join(names)}: {one}" for one, names in said.items())]


def watched(run: ReportedRun) -> dict[str, tuple[float, float]]:
    """Return what of a run tells whether something has collapsed: values before and after, over what guessing gives.

    Args:
        run: The run.
    """
    if run.first is None or not run.comparable:
        return {}
    before = above_chance(run.first.summary)
    found = {
        name: (before.get(name, math.nan), after)
        for name, after in above_chance(run.last.summary).items()
        if run.first.parts.get(name) == run.last.parts.get(name)
    }
    return {name: (one, other) for name, (one, other) in found.items() if one >= LEAST_KEPT and not math.isnan(other)}


def _collapsed(run: ReportedRun) -> Iterator[str]:
    first = run.first
    lost = [name for name, (before, after) in watched(run).items() if after < COLLAPSED * before]
    name = min(lost, key=lambda one: one != "model_utility", default=None)  # which stands for all
    if name is None or first is None:
        return
    over = f", which over guessing is under {COLLAPSED:.0%}" if chance_of(name) else f", under {COLLAPSED:.0%}"
    yield (
        f"Collapsed: {name} fell from {first.summary[name]:.3g} to {run.last.summary[name]:.3g}{over} of what it was. "
        "What should be kept is lost, so it says nothing that the rest is gone."
    )


def _unfinished(run: ReportedRun) -> Iterator[str]:
    if (run.folder / "checkpoints").is_dir() and not (run.folder / "model").is_dir():
        yield (
            f"Not finished, or its model was taken away: the last evaluation is that of step {run.last.step}. What is "
            "measured at the end alone may not be there."
        )


def _never_known(run: ReportedRun) -> Iterator[str]:
    """Say when there was nothing to forget: a deletion request is not answered by a model that never knew."""
    if run.first is None or not run.trained or run.learns:
        return
    value = run.first.summary.get("forget_quality", math.nan)
    if value >= HARDLY_KNOWN:
        yield (
            f"Not known before: at step 0 forget_quality is {value:.3g}, as of a model that never saw the forget rows. "
            "There was little to forget, so what is measured at the end says little of the method."
        )


def _not_forgotten(run: ReportedRun) -> Iterator[str]:
    """Say when nothing that tells of the forget rows has clearly changed for the better."""
    if not run.trained or not run.comparable or run.learns:
        return
    compared = [line for line in lines(run) if line.before is not None]
    told = [line for line in compared if line.name == "forget_quality" or _of_forget_set(line.name, FORGETTING)]
    told = told or [line for line in compared if _of_forget_set(line.name, SAYING)]
    known = run.first is not None and run.first.summary.get("forget_quality", 0.0) < HARDLY_KNOWN
    if not told or not known or any(line.change in ("better", "overshot") for line in told):
        return
    values = ", ".join(f"{line.name} {line.before.text} to {line.after.text}" for line in told if line.before)
    if any(line.change == "worse" for line in told):
        yield f"Not forgotten: the forget rows are better known than before ({values})."
    else:
        yield (
            f"Not forgotten: nothing has clearly changed ({values}). Train longer, with a larger step size, or "
            "with another method."
        )


def _of_forget_set(name: str, metrics: Sequence[str]) -> bool:
    group, _, metric = name.rpartition("/")
    return bool(group) and role_of(group) == "forget" and metric in metrics


def _over_unlearned(run: ReportedRun) -> Iterator[str]:
    if run.learns:
        return
    evaluation = run.last
    before = _strange(run.first) if run.first is not None and run.comparable else {}
    said = {name: value for name, value in _strange(evaluation).items() if name not in before}
    if before:
        yield (
            f"Before unlearning {', '.join(before)} said already that forget rows look stranger than holdout rows, so "
            "these are no rows of the same kind: what compares the two says nothing here."
        )
    if said:
        values = ", ".join(f"{name} {value:.3g}" for name, value in said.items())
        if not run.trained:
            yield (
                f"Forget rows look stranger than rows that the model never saw ({values}): either it was unlearned too "
                "far, or these are rows of another kind."
            )
            return
        yield (
            f"Over-unlearned: {values}. Forgotten rows look stranger to the model than rows that it never saw, which "
            "tells an attacker what was forgotten; it is no success."
        )


def _strange(evaluation: Evaluation) -> dict[str, float]:
    """Return the metrics by which forget rows look stranger than rows that the model never saw."""
    return {
        name: value
        for name, value in evaluation.summary.items()
        if meaning(name, value, evaluation.intervals.get(name)).startswith("over-unlearned")
    }


def _under_unlearned(run: ReportedRun) -> Iterator[str]:
    evaluation = run.last
    value = evaluation.summary.get("mia", math.nan)
    if run.learns or not run.trained:
        return
    if meaning("mia", value, evaluation.intervals.get("mia")).startswith("nearly all"):
        yield (
            f"Still remembered: mia is {value:.3g}. By its loss alone nearly every forgotten row can be told from rows "
            "that the model never saw."
        )


def _doubts(run: ReportedRun) -> Iterator[str]:
    sets: dict[str, Any] = run.last.fingerprint.get("sets") or {}
    for name, found in sets.items():
        if found.get("partial"):
            yield f"{name}: only {found.get('rows')} rows were measured, for the run was cut short (limit_val_batches)."
    if run.other_rows:
        yield f"The start is not compared, for it was measured on other rows of {', '.join(run.other_rows)}."
    cautions = run.last.fingerprint.get("cautions")
    if isinstance(cautions, list):
        yield from (f"{str(caution)[:1].upper()}{str(caution)[1:]}." for caution in cautions)
    elif both := _shared_rows(run.last):  # records of an earlier version
        stand = "rows stand" if both > 1 else "row stands"
        yield f"{both} {stand} in both forget and retain; remove them from one, for they pull both ways."
    data = run.config.get("data")
    wanted = data.get("retain_reference") if isinstance(data, dict) else None
    # What a shipped config brings along for its own data is nobody's mistake with other data.
    if wanted and not is_shipped(str(wanted)) and not run.last.fingerprint.get("retain_reference"):
        yield (
            "Reference mismatch: the retain_reference is of other data or another model, so what is relative to a "
            "retain model (ks_forget_quality, privleak, mia_reference) was left out."
        )
    broken = [name for name, value in run.last.summary.items() if math.isnan(value) and better(name)]
    if broken:
        more = " and more" if len(broken) > 5 else ""
        yield f"No number: {', '.join(broken[:5])}{more}; it is infinite, or some records hold none."


def _shared_rows(evaluation: Evaluation) -> int:
    forget, retain = (find(evaluation.examples, role) or {} for role in ("forget", "retain"))
    rows = [
        {(record.get("question"), record.get("answer")) for record in examples.values() if record.get("answer")}
        for examples in (forget, retain)
    ]
    return len(rows[0] & rows[1])


def _unlike(runs: list[ReportedRun]) -> Iterator[str]:
    first = runs[0]
    for at, run in enumerate(runs[1:], start=1):
        earlier = runs[:at]
        ours, theirs = ((one.last.fingerprint.get("sets") or {}) for one in (first, run))
        for other, sets in _first_unlike(run, earlier, theirs, _rows).items():
            yield f"{run.name} was measured on other rows of {', '.join(sets)} than {other}: not comparable."
        missing = sorted(ours.keys() ^ theirs.keys())
        if missing:
            yield f"{run.name} and {first.name} were not measured on the same sets: one lacks {', '.join(missing)}."
        for other in _first_unlike(run, earlier, [""], lambda one, _: one.fingerprint.get("tokenizer") or ""):
            yield f"{run.name} was asked with another tokenizer than {other}: do not compare their likelihoods."
        for other, sets in _first_unlike(run, earlier, theirs, _asked).items():
            yield (
                f"{run.name} was asked in another way than {other} (template, shots, tokens) on {', '.join(sets)}: do "
                "not compare these."
            )
        for other in _first_unlike(run, earlier, [""], lambda one, _: one.fingerprint.get("retain_reference")):
            reference = run.last.fingerprint.get("retain_reference")
            yield f"{run.name} was compared with another retain model ({reference}) than {other}."


def _first_unlike(
    run: ReportedRun, earlier: list[ReportedRun], sets: Iterable[str], fact: Callable[[Evaluation, str], Any]
) -> dict[str, list[str]]:
    """Return, by the name of the first run that differs in a fact of a set, the sets; None is no difference."""
    found: dict[str, list[str]] = {}
    for name in sets:
        ours = fact(run.last, name)
        for other in earlier:
            theirs = fact(other.last, name)
            if ours is not None and theirs is not None and ours != theirs:
                found.setdefault(other.name, []).append(name)
                break
    return found


def _rows(evaluation: Evaluation, name: str) -> Any:  # noqa: ANN401 - any JSON value
    return ((evaluation.fingerprint.get("sets") or {}).get(name) or {}).get("digest")


def _asked(evaluation: Evaluation, name: str) -> list[Any] | None:
    """Return how a set was asked, and how long its answers might be; None where it was not."""
    facts = evaluation.fingerprint
    own = (facts.get("sets") or {}).get(name)
    return None if own is None else [own.get(key) or facts.get(key) for key in ("template", "generation")]


def _other_parts(runs: list[ReportedRun]) -> Iterator[str]:
    names = dict.fromkeys(name for run in runs for name in run.last.parts)
    for name in names:
        made_of = {frozenset(run.last.parts[name]) for run in runs if name in run.last.parts}
        if len(made_of) > 1:
            yield f"{name} is made of other parts in some runs: its values are no two values of one thing."
