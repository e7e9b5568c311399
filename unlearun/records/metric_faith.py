"""Whether a metric can be trusted: does it see that knowledge was only hidden, and does it stay put when nothing is?

Both take values of a metric that rises with knowledge; of one that falls with it, such as ``forget_quality``, give 1
minus its value. Source: Dorna 2025, "OpenUnlearning" (2506.12618), its section on meta-evaluation, by way of others'
notes on it, for its authors published no code of this part.
"""

from __future__ import annotations

import math

LEAST_CHANGE = 0.01


def relearning_faith(
    retain_before: float, retain_after: float, unlearned_before: float, unlearned_after: float
) -> float:
    """Return R = min((change in the retain model) / (change in the unlearned model), 1) under relearning.

    A metric that had called knowledge gone which comes back faster than it is learnt anew was wrong: R is then small.

    Args:
        retain_before: The metric of a model that never saw the forget set.
        retain_after: The same after it has learnt as the unlearned model has.
        unlearned_before: The metric of the unlearned model.
        unlearned_after: The same after relearning.

    Returns:
        0 to 1, the best. Ours are three bounds: 0 where the retain model's fell, 1 where it rose and the unlearned
        model's did not, and NaN where neither rose by 0.01, for then nothing is known.

    >>> relearning_faith(0.1, 0.2, 0.1, 0.5)
    0.25
    """
    change, learnt = unlearned_after - unlearned_before, retain_after - retain_before
    if math.isnan(change) or math.isnan(learnt) or max(change, learnt) < LEAST_CHANGE:
        return math.nan
    return 1.0 if change <= learnt else max(0.0, learnt / change)


def quantisation_faith(before: float, after: float) -> float:
    """Return Q = min(before / after, 1) under quantisation, which cannot teach a model anything.

    Args:
        before: The metric of the unlearned model.
        after: The same of its quantised weights.

    Returns:
        0 to 1, the best; 1 where quantisation brought nothing back.

    >>> quantisation_faith(0.2, 0.8)
    0.25
    """
    if math.isnan(before) or math.isnan(after):
        return math.nan
    return 1.0 if after <= before else before / after
