"""All that can be said of an evaluation from its records alone, with or without those of a retain model.

A live evaluation and ``unlearun score`` both come through here, so they agree to the last digit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import numpy as np

from unlearun.records.aggregates import auroc, harmonic_mean, kolmogorov_smirnov, privleak
from unlearun.records.evaluation import Evaluation, role_of
from unlearun.records.scores import Floats, Score, choice, mean, set_scores
from unlearun.records.table import SetTable, interval

ATTACKS = ("mia", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus", "mia_grad_norm")
REFERENCE_ATTACK = "mia_reference"
NEED_REFERENCE = ("ks_forget_quality", "privleak", REFERENCE_ATTACK)
AGGREGATES = ("forget_quality", "ks_forget_quality", "model_utility", *ATTACKS, REFERENCE_ATTACK, "privleak")

# A part of an aggregate: its name, its value, and resampled values where there are examples behind it.
Part = tuple[str, float, Floats | None]
T = TypeVar("T")


def summarise(
    evaluation: Evaluation,
    reference: Evaluation | None = None,
    custom: Iterable[Score] = (),
    intervals: bool = True,
    seed: int = 0,
) -> None:
    """Fill in summary, parts and intervals of an evaluation.

    Args:
        evaluation: Its examples are read; its ``metrics`` choose the aggregates, all where there are none.
        reference: The same of a model that never saw the forget set, for what is relative to one. That it fits is
            for the caller to check.
        custom: Scores of metrics that are not ours.
        intervals: Whether to compute 95% bootstrap confidence intervals.
        seed: What the resamples are drawn from.
    """
    summary = _Summary(evaluation, reference, intervals, seed)
    evaluation.summary, evaluation.parts, evaluation.intervals = dict(evaluation.given), {}, {}
    for name, value, resampled in summary.values(list(custom)):
        evaluation.summary[name] = value
        if resampled is not None:
            evaluation.intervals[name] = interval(resampled)
    evaluation.parts = summary.parts


def resamples(evaluation: Evaluation, seed: int = 0) -> dict[str, Floats]:
    """Return what each value of an evaluation is in every bootstrap resample, as far as its records tell it.

    Those of two evaluations of the same rows, with the same seed, belong together one by one: the interval of their
    differences is that of a paired comparison.

    Args:
        evaluation: Its examples are read.
        seed: What the resamples are drawn from.

    Returns:
        ``(R,)`` values by name.
    """
    values = _Summary(evaluation, None, True, seed).values([])
    return {name: drawn for name, _, drawn in values if drawn is not None}


class _Summary:
    def __init__(self, evaluation: Evaluation, reference: Evaluation | None, resample: bool, seed: int) -> None:
        self.evaluation = evaluation
        self.reference = reference
        self.resample = resample
        self.tables = {name: SetTable(name, rows, seed) for name, rows in evaluation.examples.items()}
        # The same seed, name and size give the same resamples, so that differences of the two keep their correlation.
        rows_of_reference = {} if reference is None else reference.examples
        self.of_reference = {name: SetTable(name, rows, seed) for name, rows in rows_of_reference.items()}
        self.parts: dict[str, list[str]] = {}

    def values(self, custom: list[Score]) -> Iterator[tuple[str, float, Floats | None]]:
        """Yield name, value and resampled values, of sets first."""
        for name, table in self.tables.items():
            scores = {**set_scores(role_of(name)), **{score.name: score for score in custom}}
            for title, score in scores.items():
                value = table.score(score)
                if value is not None:
                    yield f"{name}/{title}", value, table.resampled(score) if self.resample else None
        yield from self._harmonic("forget_quality", self._forget_parts())
        yield from self._harmonic("model_utility", self._utility_parts())
        yield from self._membership()
        yield from self._kolmogorov_smirnov()

    def _wanted(self, name: str) -> bool:
        return not self.evaluation.metrics or name in self.evaluation.metrics

    def _harmonic(self, name: str, parts: list[Part]) -> Iterator[tuple[str, float, Floats | None]]:
        if not parts or not self._wanted(name):
            return
        self.parts[name] = [title for title, _, _ in parts]
        values = [np.array(value) for _, value, _ in parts]
        resampled = [drawn for _, _, drawn in parts if drawn is not None]
        yield name, float(harmonic_mean(values)), harmonic_mean(resampled) if len(resampled) == len(parts) else None

    def _forget_parts(self) -> list[Part]:
        table, given = find(self.tables, "forget"), self.evaluation.given
        paraphrased = table is not None and table.rows_with(["paraphrase_probability"])
        likely = "paraphrase_probability" if paraphrased else "probability"
        parts = []
        for column in ("exact_memorization", "extraction_strength", likely):
            rest = 1 - given.get(f"forget/{column}", np.nan)
            parts += self._part(f"1-{column}", table, Score(column, (column,), _rest), rest)
        not_chosen = Score("choice", ("truth_ratio",), lambda records, weights: 1 - choice(records, weights))
        return parts + self._part("1-choice", table, not_chosen, np.nan)

    def _utility_parts(self) -> list[Part]:
        given, parts = self.evaluation.given, []
        for name in dict.fromkeys([*self.tables, *(title.rpartition("/")[0] for title in given)]):
            if name and role_of(name) in ("retain", "utility"):
                for title in ("probability", "rouge", "truth_ratio"):
                    stated = given.get(f"{name}/{title}", np.nan)
                    score = set_scores(role_of(name))[title]
                    parts += self._part(f"{name}/{title}", self.tables.get(name), score, stated)
        return parts

    def _part(self, title: str, table: SetTable | None, score: Score, given: float) -> list[Part]:
        """Return a score of a set as the one part that it is, computed or else given; nothing where it is neither."""
        value = None if table is None else table.score(score)
        if table is not None and value is not None:
            return [(title, value, table.resampled(score) if self.resample else None)]
        return [] if np.isnan(given) else [(title, given, None)]

    def _area(self, columns: list[str], members: SetTable, others: SetTable) -> tuple[float, Floats | None]:
        """Return the AUROC of scores of two sets, and resampled ones."""
        first, second = (table.columns(columns)[:, 0] for table in (members, others))
        value = float(auroc(first, second)[0])
        if not self.resample:
            return value, None
        return value, auroc(first, second, members.weights(columns), others.weights(columns))

    def _membership(self) -> Iterator[tuple[str, float, Floats | None]]:
        members, others = find(self.tables, "forget"), find(self.tables, "holdout")
        area = self.evaluation.given.get("mia_min_k")
        resampled = None
        if members is not None and others is not None:
            for attack in ATTACKS:
                columns = [attack]
                if not (members.rows_with(columns) and others.rows_with(columns)):
                    continue
                value, drawn = self._area(columns, members, others)
                if attack == "mia_min_k":
                    area, resampled = value, drawn
                if self._wanted(attack):
                    yield attack, value, drawn
            if self._wanted(REFERENCE_ATTACK):
                yield from self._reference_attack(members, others)
        retain_area = None if self.reference is None else min_k_area(self.reference)
        if area is not None and retain_area is not None and self._wanted("privleak"):
            theirs = self._resampled_area()
            leak = None if resampled is None or theirs is None else privleak(resampled, theirs)
            yield "privleak", float(privleak(np.array(area), np.array(retain_area))), leak

    def _resampled_area(self) -> Floats | None:
        """Return the reference's min-k area in each resample; None where it has no scores."""
        tables = [find(self.of_reference, role) for role in ("forget", "holdout")]
        known = [table for table in tables if table is not None and table.rows_with(["mia_min_k"])]
        return self._area(["mia_min_k"], *known)[1] if len(known) == 2 else None

    def _reference_attack(self, members: SetTable, others: SetTable) -> Iterator[tuple[str, float, Floats | None]]:
        """Compare (S - S_ref) / n of members and others, as far as the reference has the same examples."""
        differences = []
        for role, table in (("forget", members), ("holdout", others)):
            theirs = find(self.of_reference, role)
            if theirs is None:
                return
            known = dict(zip(theirs.ids, theirs.columns(["logprob"]), strict=True)) if _complete(theirs) else {}
            if not _complete(table) or not all(key in known for key in table.ids):
                return
            own = table.columns(["logprob", "tokens"])
            differences.append((own[:, 0] - np.array([known[key][0] for key in table.ids])) / own[:, 1])
        first, second = differences
        drawn = None
        if self.resample:
            drawn = auroc(first, second, members.weights(["logprob"]), others.weights(["logprob"]))
        yield REFERENCE_ATTACK, float(auroc(first, second)[0]), drawn

    def _kolmogorov_smirnov(self) -> Iterator[tuple[str, float, None]]:
        ours, theirs = find(self.tables, "forget"), find(self.of_reference, "forget")
        if ours is None or theirs is None or not self._wanted("ks_forget_quality"):
            return
        ratios, retain_ratios = ours.columns(["truth_ratio"])[:, 0], theirs.columns(["truth_ratio"])[:, 0]
        if len(ratios) and len(retain_ratios):
            p = kolmogorov_smirnov(ratios, retain_ratios)
            yield "ks_forget_quality", p, None
            yield "ks_forget_quality_log10", float(np.log10(max(p, 5e-324))), None


def find(sets: Mapping[str, T], role: str) -> T | None:
    """Return the set that is called like its role, else the first that plays it; None without any."""
    if role in sets:
        return sets[role]
    return next((found for name, found in sets.items() if role_of(name) == role), None)


def min_k_area(evaluation: Evaluation) -> float | None:
    """Return the AUROC of min-k, computed or given; None where the evaluation has neither."""
    tables = {name: SetTable(name, rows) for name, rows in evaluation.examples.items()}
    members, others = find(tables, "forget"), find(tables, "holdout")
    if members is not None and others is not None:
        scores, strangers = members.columns(["mia_min_k"]), others.columns(["mia_min_k"])
        if len(scores) and len(strangers):
            return float(auroc(scores[:, 0], strangers[:, 0])[0])
    return evaluation.given.get("mia_min_k")


def _rest(records: Floats, weights: Floats) -> Floats:
    return 1 - mean(records, weights)


def _complete(table: SetTable) -> bool:
    return len(table.rows_with(["logprob", "tokens"])) == len(table.ids) > 0
