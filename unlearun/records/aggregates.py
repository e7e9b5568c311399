"""Numbers made of several scores or sets: forget quality, model utility, membership inference, PrivLeak.

Shapes: R resamples, M members, N non-members.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unlearun.records.scores import Floats


def harmonic_mean(values: Sequence[Floats] | Floats) -> Floats:
    """Return the harmonic mean over the first axis, 0 where any value is 0 or below, NaN where any is.

    >>> harmonic_mean([0.5, 1.0]).round(4).item()
    0.6667
    """
    stacked = np.asarray(values, dtype=np.float64)
    positive = np.where(stacked > 0, stacked, 1.0)
    mean = len(stacked) / (1 / positive).sum(0)
    return np.where(np.isnan(stacked).any(0), np.nan, np.where((stacked <= 0).any(0), 0.0, mean))


def auroc(
    members: Floats, others: Floats, weights: Floats | None = None, weights_of_others: Floats | None = None
) -> Floats:
    """Return the area under the ROC curve of telling members by a higher score; ties count half.

    Args:
        members: ``(M,)`` scores.
        others: ``(N,)`` scores.
        weights: ``(R, M)`` how often each member counts; None: once.
        weights_of_others: ``(R, N)`` likewise.

    Returns:
        ``(R,)`` areas; 1 when every member scores higher than every other.

    >>> auroc(np.array([2.0, 1.0]), np.array([1.0, 0.0])).item()
    0.875
    """
    w = np.ones((1, len(members))) if weights is None else weights
    v = np.ones((1, len(others))) if weights_of_others is None else weights_of_others
    wins = (members[:, None] > others[None, :]) + 0.5 * (members[:, None] == others[None, :])
    area = ((w @ wins) * v).sum(-1) / (w.sum(-1) * v.sum(-1))
    return np.where(np.isnan(members).any() or np.isnan(others).any(), np.nan, area)


def privleak(area: Floats, retain_area: Floats) -> Floats:
    """Return MUSE's PrivLeak in percent: 0 is right, negative is under-unlearned.

    Args:
        area: AUROC of min-k of the model, any shape.
        retain_area: The same of a model that never saw the forget set.

    Returns:
        ((1 - AUC) - (1 - AUC_retain)) / (1 - AUC_retain) · 100; NaN where the retain model tells all apart.

    Source: Shi 2024, MUSE (2407.06460), equation 3.

    >>> privleak(np.array([1.0]), np.array([0.5])).item()
    -100.0
    """
    rest = 1 - np.asarray(retain_area, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(rest > 0, ((1 - area) - rest) / rest * 100, np.nan)


def kolmogorov_smirnov(truth_ratios: Floats, retain_truth_ratios: Floats) -> float:
    """Return TOFU's forget quality: the p-value of the two-sample test of truth ratios against a retain model's.

    Args:
        truth_ratios: ``(E,)``.
        retain_truth_ratios: ``(E,)``, of a model that never saw the forget set.

    Returns:
        The p-value, 0 to 1: 1 when the two cannot be told apart.

    Source: Maini 2024, TOFU (2401.06121), section 2.2.
    """
    from scipy.stats import ks_2samp  # half a second, which other commands need not wait

    if np.isnan(truth_ratios).any() or np.isnan(retain_truth_ratios).any():
        return float("nan")
    return float(ks_2samp(truth_ratios, retain_truth_ratios).pvalue)
