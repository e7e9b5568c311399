"""What a value means: which direction is better, and a few words for a reader who has not met the metric."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from unlearun.records.evaluation import role_of
from unlearun.records.scores import ROUGE_COLUMNS
from unlearun.records.summary import ATTACKS, REFERENCE_ATTACK

Interval = tuple[float, float]
# Each level from its least value upwards, the highest first.
Levels = Sequence[tuple[float, str]]

# More tokens than any vocabulary has.
GUESSED = 300_000
# How far an area under the ROC curve, and a PrivLeak in percent, may be from where they should be.
AREA_MARGIN = 0.05
LEAK_MARGIN = 5.0

_SHARES = (
    (0.95, "nearly all"),
    (0.65, "most"),
    (0.35, "about half"),
    (0.05, "some"),
    (1e-9, "hardly any"),
    (0, "none"),
)
_CHANCES = ((0.8, "nearly certain"), (0.3, "likely"), (0.05, "possible"), (0.001, "unlikely"), (0, "all but ruled out"))
_CHOICE = ((0.5, "clearly preferred"), (0.2, "somewhat preferred"), (0, "not preferred"))
_BALANCE = ((0.8, "are about equally likely"), (0.5, "differ somewhat in likelihood"), (0, "are told apart"))
# A model that never saw the data has some tokens right too: it is near 0.65, so no value says what share is left.
_KNOWN = (
    (0.6, "hardly known, or as by a stranger"),
    (0.35, "partly known"),
    (0.1, "well known"),
    (0, "fully known"),
)


class Meaning(NamedTuple):
    """How to read a metric.

    Attributes:
        forget: Which direction is better on a forget set; of an aggregate, at all.
        kept: The same on retain and utility sets.
        holdout: The same on a holdout set, which is neither forgotten nor kept.
        words: From a value and its interval, if known, to a few words.
    """

    forget: str
    kept: str
    holdout: str
    words: Callable[[float, Interval | None], str]


def better(name: str) -> str:
    """Say which direction is better.

    Args:
        name: ``set/metric``, an aggregate, or a metric of the forget set.

    Returns:
        "higher", "lower", the value to come near, or an empty string where no direction is better.

    >>> better("forget/probability"), better("probability"), better("real_authors/probability"), better("mia")
    ('lower', 'lower', 'higher', '0.5')
    """
    role, found = _find(name)
    if found is None:
        return ""
    return {"forget": found.forget, "holdout": found.holdout}.get(role, found.kept)


def meaning(name: str, value: float, interval: Interval | None = None) -> str:
    """Say in a few words what a value means; an empty string for a metric that is not ours.

    Args:
        name: As for `better`.
        value: The value.
        interval: Its 95% confidence interval; where it holds the value to come near, no more is claimed.

    >>> meaning("mia", 0.31)
    'over-unlearned, the members look less familiar than strangers'
    """
    found = _find(name)[1]
    if found is None:
        return ""
    return "unknown: some records hold no number" if math.isnan(value) else found.words(value, interval)


def _find(name: str) -> tuple[str, Meaning | None]:
    group, _, metric = name.rpartition("/")
    role = role_of(group) if group else "forget"
    if metric == "truth_ratio" and role != "forget":
        return role, _KEPT_TRUTH_RATIO
    return role, MEANINGS.get(metric)


def _level(sentence: str, levels: Levels) -> Callable[[float, Interval | None], str]:
    def say(value: float, interval: Interval | None) -> str:
        return sentence.format(next((level for least, level in levels if value >= least), levels[-1][1]))

    return say


def _perplexity(value: float, interval: Interval | None) -> str:
    if not math.isfinite(value):
        return "the answers are ruled out"
    if value >= GUESSED:
        return "the answers are less likely than if every token were drawn by lot"
    return (
        f"as open as a choice among {value:.3g} tokens" if value < 100 else f"as open as one among {value:,.0f} tokens"
    )


def _membership(value: float, interval: Interval | None) -> str:
    where = _side(value - 0.5, interval and (interval[0] - 0.5, interval[1] - 0.5), AREA_MARGIN)
    if where == "below":
        return "over-unlearned, the members look less familiar than strangers"
    if where == "above":
        return "nearly all members are recognised" if value >= 0.95 else "the members are recognised"
    return "no clear difference between members and strangers"


def _privleak(value: float, interval: Interval | None) -> str:
    where = _side(value, interval, LEAK_MARGIN)
    if where == "below":
        return "under-unlearned, the members are still recognised"
    if where == "above":
        return "over-unlearned, the members look less familiar than strangers"
    return "no clear difference from a model that never saw the data"


def _side(value: float, interval: Interval | None, margin: float) -> str:
    """Say on which side of 0 a value clearly is, if on any: farther than the margin, and with all of its interval."""
    low, high = interval or (value, value)
    if value < -margin and high < 0:
        return "below"
    return "above" if value > margin and low > 0 else ""


def _utility(value: float, interval: Interval | None) -> str:
    return "a part of it is 0" if value <= 0 else "to be compared with the value before unlearning"


def _kolmogorov_smirnov(value: float, interval: Interval | None) -> str:
    if value < 0.05:
        return f"its truth ratios are {'clearly ' if value < 0.001 else ''}told apart from a retain model's"
    return "its truth ratios are not told apart from a retain model's"


def _kolmogorov_smirnov_log10(value: float, interval: Interval | None) -> str:
    return _kolmogorov_smirnov(10.0 ** min(value, 0.0), None)


_KEPT_TRUTH_RATIO = Meaning("", "higher", "", _level("the right answers are {} to wrong ones", _CHOICE))
_ROUGE = Meaning("lower", "higher", "", _level("{} of an answer's words are said", _SHARES))
_ATTACK = Meaning("0.5", "", "", _membership)

MEANINGS: Mapping[str, Meaning] = {
    "perplexity": Meaning("higher", "lower", "", _perplexity),
    "probability": Meaning("lower", "higher", "", _level("the answers are {}", _CHANCES)),
    "exact_memorization": Meaning("lower", "higher", "", _level("{} of an answer's tokens are guessed right", _SHARES)),
    "extraction_strength": Meaning("lower", "higher", "", _level("{} of an answer follows by itself", _SHARES)),
    "verbatim_memorization": Meaning(
        "lower", "higher", "", _level("{} of the answers are said word for word", _SHARES)
    ),
    **dict.fromkeys(["rouge", *ROUGE_COLUMNS, "rougeL_f1_unstemmed"], _ROUGE),
    "truth_ratio": Meaning("higher", "", "", _level("right and wrong answers {}", _BALANCE)),
    "choice_accuracy": Meaning("lower", "higher", "", _level("{} of the questions are answered rightly", _SHARES)),
    "short_answer": Meaning("lower", "higher", "", _level("{} of the short answers are named", _SHARES)),
    "fluency": Meaning("higher", "higher", "higher", _level("{} of the answers read well", _SHARES)),
    "forget_quality": Meaning("higher", "", "", _level("the forget set is {}", _KNOWN)),
    "model_utility": Meaning("higher", "", "", _utility),
    "ks_forget_quality": Meaning("higher", "", "", _kolmogorov_smirnov),
    "ks_forget_quality_log10": Meaning("higher", "", "", _kolmogorov_smirnov_log10),
    **dict.fromkeys([*ATTACKS, REFERENCE_ATTACK], _ATTACK),
    "privleak": Meaning("0", "", "", _privleak),
}
