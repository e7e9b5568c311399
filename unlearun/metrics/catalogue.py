"""Which metrics there are, what each measures on which set, and what data it needs."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from unlearun.errors import UnlearunError, closest
from unlearun.metrics.example_metric import ExampleMetric
from unlearun.metrics.likelihood import ChoiceAccuracy, ParaphraseProbability, Perplexity, Probability, TruthRatio
from unlearun.metrics.membership import GradientNorm, MembershipScore
from unlearun.metrics.memorization import ExactMemorization, ExtractionStrength
from unlearun.metrics.text import ROUGE, Fluency, ShortAnswer, UnstemmedROUGE, VerbatimMemorization
from unlearun.records import AGGREGATES, NEED_REFERENCE, role_of

Metrics: TypeAlias = list[ExampleMetric]
Choice: TypeAlias = "str | Mapping[str, Any]"


@dataclass(frozen=True)
class SetTraits:
    """What the rows of an evaluated set have beside questions and answers.

    Attributes:
        paraphrase: Whether any has its answer in other words.
        wrong: Whether any has wrong answers.
        short: Whether any has a short answer.
    """

    paraphrase: bool = False
    wrong: bool = False
    short: bool = False


def _probability(role: str, traits: SetTraits) -> Metrics:
    return [Probability(normalized=role == "utility" and traits.wrong and not traits.paraphrase)]


def _truth_ratio(role: str, traits: SetTraits) -> Metrics:
    return [TruthRatio(forget=role == "forget")] if traits.wrong else []


def _forget_quality(role: str, traits: SetTraits) -> Metrics:
    if role != "forget":
        return []
    paraphrase: Metrics = [ParaphraseProbability()] if traits.paraphrase else []
    own: Metrics = [ExactMemorization(), ExtractionStrength(), Probability()]
    return [*own, *paraphrase, *_truth_ratio(role, traits)]


def _model_utility(role: str, traits: SetTraits) -> Metrics:
    if role not in ("retain", "utility"):
        return []
    return [*_probability(role, traits), ROUGE(), *_truth_ratio(role, traits)]


def _compared(make: Callable[[], ExampleMetric]) -> Callable[[str, SetTraits], Metrics]:
    """Make a metric on the two sets that membership inference compares."""
    return lambda role, traits: [make()] if role in ("forget", "holdout") else []


# For each name what must be measured on a set of this role and with these traits.
CATALOGUE: dict[str, Callable[[str, SetTraits], Metrics]] = {
    "perplexity": lambda role, traits: [Perplexity()],
    "probability": _probability,
    "exact_memorization": lambda role, traits: [ExactMemorization()],
    "extraction_strength": lambda role, traits: [ExtractionStrength()],
    "verbatim_memorization": lambda role, traits: [VerbatimMemorization()],
    "rouge": lambda role, traits: [ROUGE()],
    "short_answer": lambda role, traits: [ShortAnswer()] if traits.short else [],
    "truth_ratio": _truth_ratio,
    "forget_quality": _forget_quality,
    "ks_forget_quality": lambda role, traits: _truth_ratio(role, traits) if role == "forget" else [],
    "model_utility": _model_utility,
    "mia": _compared(lambda: MembershipScore("loss")),
    "mia_zlib": _compared(lambda: MembershipScore("zlib")),
    "mia_min_k": _compared(lambda: MembershipScore("min_k")),
    "mia_min_k_plus_plus": _compared(lambda: MembershipScore("min_k_plus_plus")),
    "mia_reference": _compared(Perplexity),
    "mia_grad_norm": _compared(GradientNorm),
    "privleak": _compared(lambda: MembershipScore("min_k")),
    "fluency": lambda role, traits: [Fluency()],
    "rougeL_f1_unstemmed": lambda role, traits: [UnstemmedROUGE()],
    "choice_accuracy": lambda role, traits: [ChoiceAccuracy()] if traits.wrong else [],
}
ALL = "all"
OPT_IN = ("fluency", "rougeL_f1_unstemmed", "mia_grad_norm", "choice_accuracy")
_OWN = {
    *(Perplexity.title, Probability.title, ParaphraseProbability.title, TruthRatio.title, ExactMemorization.title),
    *(ExtractionStrength.title, VerbatimMemorization.title, ROUGE.title, ShortAnswer.title, Fluency.title),
    *(UnstemmedROUGE.title, MembershipScore.title, GradientNorm.title, ChoiceAccuracy.title),
}
NEED_WRONG = ("truth_ratio", "ks_forget_quality", "choice_accuracy")


def choose(
    choices: Sequence[Choice] | None, sets: Mapping[str, SetTraits], offered: Collection[str] = ()
) -> list[Choice]:
    """Say which metrics are measured.

    Args:
        choices: Names, dotted paths of classes, or mappings of ``class_path`` and ``init_args``; None, or "all" among
            them, for all names that the data allow and that are not opt-in.
        sets: The evaluated sets.
        offered: The metrics that records of a retain model can serve, as far as there are such.

    Returns:
        The choices, each once.

    Raises:
        UnlearunError: A name does not exist, or lacks its data; all such at once, with what to add.
    """
    lacking = {name: reason for name in CATALOGUE if (reason := _lacks(name, sets, offered))}
    every: list[Choice] = [name for name in CATALOGUE if name not in lacking and name not in OPT_IN]
    if choices is None:
        return every
    choices = [one for choice in choices for one in (every if choice == ALL else [choice])]
    problems = []
    for choice in choices:
        if not isinstance(choice, (str, Mapping)):
            raise UnlearunError(f"metrics are chosen by name or dotted path ('my_module.MyMetric'), found {choice!r}")
        name = choice if isinstance(choice, str) else str(choice.get("class_path"))
        if name in lacking:
            problems.append(f"{name} {lacking[name]}")
        elif name not in CATALOGUE and "." not in name:
            known = ", ".join(CATALOGUE)
            problems.append(
                f"there is no metric {name!r}.{closest(name, CATALOGUE)} Known: {known}; all; or a dotted path"
            )
    if problems:
        raise UnlearunError("; ".join(problems))
    return [choice for i, choice in enumerate(choices) if choice not in choices[:i]]


def make_metrics(choices: Sequence[Choice], name: str, traits: SetTraits) -> Metrics:
    """Make what must be measured on one set.

    Args:
        choices: What `choose` returned.
        name: The set.
        traits: What its rows have.

    Returns:
        Metrics, each record column once.

    Raises:
        UnlearunError: A metric of the user's own would write what another writes.
    """
    made: Metrics = []
    custom: Metrics = []
    for choice in choices:
        if isinstance(choice, str) and choice in CATALOGUE:
            made += CATALOGUE[choice](role_of(name), traits)
        else:
            custom.append(_custom(choice))
    columns: dict[tuple[str, ...], ExampleMetric] = {}
    for metric in made:
        columns.setdefault(metric.columns, metric)
    taken = {*CATALOGUE, *AGGREGATES, *(column for known in columns for column in known)} - {Fluency.title}
    for metric in custom:
        clash = sorted(taken & {metric.title, *metric.columns})
        if clash:
            raise UnlearunError(
                f"{type(metric).__name__} would write {clash[0]!r}, which is another metric's; give it a title and "
                "columns of its own"
            )
        taken |= {metric.title, *metric.columns}
    return [*columns.values(), *custom]


def is_custom(metric: ExampleMetric) -> bool:
    """Say whether a metric is none of the catalogue's own."""
    return metric.title not in _OWN


def _custom(choice: Choice) -> ExampleMetric:
    path = choice if isinstance(choice, str) else str(choice.get("class_path"))
    arguments = {} if isinstance(choice, str) else dict(choice.get("init_args") or {})
    module, _, name = path.rpartition(".")
    try:
        made = getattr(importlib.import_module(module), name)(**arguments)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UnlearunError(
            f"the metric {path} cannot be made: {error}; expected the dotted path of a class"
        ) from error
    if isinstance(made, ExampleMetric) and not hasattr(made, "title"):
        raise UnlearunError(f"{path} has no title; give the class one: title = 'my_metric'")
    if not isinstance(made, ExampleMetric):
        raise UnlearunError(f"{path} is no ExampleMetric; derive it from unlearun.metrics.TokenMetric or TextMetric")
    return made


def _lacks(name: str, sets: Mapping[str, SetTraits], offered: Collection[str]) -> str | None:
    roles = {role_of(title) for title in sets}
    if name.startswith("mia") or name == "privleak":
        missing = [role for role in ("forget", "holdout") if role not in roles]
        if missing:
            return f"compares the forget set with rows that the model never saw; {_add(missing[0])}"
    if name in NEED_REFERENCE and name not in offered:
        if offered:
            return (
                "needs more than retain_reference holds; evaluate the retain model on the same sets, holdout included"
            )
        return "compares with a model that never saw the forget set; add its records: retain_reference"
    wrong = [title for title, traits in sets.items() if traits.wrong]
    if name == "ks_forget_quality":
        wrong = [title for title in wrong if role_of(title) == "forget"]
    if name in NEED_WRONG and not wrong:
        return "needs wrong answers; add a list of them to each row as perturbed_answer, or name its key: perturbed_key"
    if name == "short_answer" and not any(traits.short for traits in sets.values()):
        return "needs the words that a right answer must hold; add them to rows as short_answer"
    if name == "forget_quality" and "forget" not in roles:
        return f"is measured on a forget set; {_add('forget')}"
    if name == "model_utility" and not roles & {"retain", "utility"}:
        return f"is measured on what must survive; {_add('retain')}, or utility"
    return None


def _add(name: str) -> str:
    return f"add --data.{name} FILE (in Python: {name}_data=...)"
