"""One score of an unlearned model: what it still knows, whom it gives away, and what it is still good for."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from unlearun.records.aggregates import harmonic_mean
from unlearun.records.evaluation import Evaluation
from unlearun.records.same_rows import measured_otherwise

# Those that need no gradients.
COMPARED_ATTACKS = ("mia", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus")


class OneScore(NamedTuple):
    """The parts of a score and the score, each 0 to 1, higher being better; NaN where it is not known.

    Attributes:
        memorization: Mem, the harmonic mean of 1 - ES, 1 - EM, 1 - probability of the paraphrase and
            1 - p_c/(p_c + p_w), as far as the rows have what they need: what `forget_quality` is too.
        privacy: Priv, the harmonic mean of how near the AUROC of each membership attack, of those that both were
            measured by, comes to the retain model's.
        utility: Util, the model utility and, where both have it, the fluency of the forget set, as shares of those at
            the start, at most 1; their harmonic mean.
        aggregate: Agg, the harmonic mean of the three.
    """

    memorization: float
    privacy: float
    utility: float
    aggregate: float


def one_score(unlearned: Evaluation, start: Evaluation | None, retain: Evaluation | None) -> OneScore:
    """Put what an evaluation says into one number.

    What privacy is made of, s = clip(1 - |AUC - AUC_retain| / AUC_retain, 0, 1), comes from a secondary transcription
    of the paper, a reconstruction by others; the authors' code has no formula, and their own may differ.

    Args:
        unlearned: Of the model that is judged.
        start: Of the model before unlearning; None where it was not measured: utility, and so the whole, is unknown, as
            they are where it was measured on other rows.
        retain: Of a model that never saw the forget set; None where there is none: likewise privacy.

    Source: Dorna 2025, "OpenUnlearning" (2506.12618), its section on meta-evaluation and ranking of methods.
    """
    parts = [unlearned.summary.get("forget_quality", math.nan), privacy(unlearned, retain), utility(unlearned, start)]
    memorization, private, useful = parts
    return OneScore(memorization, private, useful, _harmonic(parts))


def privacy(unlearned: Evaluation, retain: Evaluation | None) -> float:
    """Say how near the membership attacks on a model come to those on a retain model; NaN where none can be compared.

    Args:
        unlearned: Of the model that is judged.
        retain: Of a model that never saw the forget set.
    """
    if retain is None or measured_otherwise(unlearned, retain, ("forget", "holdout")):
        return math.nan
    near = []
    for attack in COMPARED_ATTACKS:
        area, wanted = (one.summary.get(attack, math.nan) for one in (unlearned, retain))
        if attack in unlearned.summary and attack in retain.summary:
            near.append(closeness(area, wanted))
    return _harmonic(near)


def closeness(area: float, retain_area: float) -> float:
    """Return s = clip(1 - |AUC - AUC_retain| / AUC_retain, 0, 1).

    Args:
        area: AUROC of a membership attack on the model that is judged.
        retain_area: The same of the retain model.

    >>> closeness(0.75, 0.5), closeness(0.5, 0.5)
    (0.5, 1.0)
    """
    if math.isnan(area) or not retain_area > 0:
        return math.nan
    return max(0.0, 1 - abs(area - retain_area) / retain_area)


def utility(unlearned: Evaluation, start: Evaluation | None) -> float:
    """Return what is left of the usefulness of the start, at most 1; NaN where it is not known.

    Args:
        unlearned: Of the model that is judged.
        start: Of the model before unlearning.
    """
    if start is None or {*start.parts.get("model_utility", ())} != {*unlearned.parts.get("model_utility", ())}:
        return math.nan
    if measured_otherwise(unlearned, start, ("retain", "utility")):
        return math.nan
    shares = []
    for name in ("model_utility", "forget/fluency"):
        before, after = (one.summary.get(name, math.nan) for one in (start, unlearned))
        if name == "model_utility" or (name in start.summary and name in unlearned.summary):
            shares.append(min(1.0, after / before) if before > 0 and not math.isnan(after) else math.nan)
    return _harmonic(shares)


def _harmonic(values: list[float]) -> float:
    return float(harmonic_mean(np.array(values))) if values else math.nan
