"""OpenUnlearning's TOFU_EVAL.json: for each metric its value, and fields of each example.

Source: Dorna 2025, OpenUnlearning (2506.12618).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from unlearun.records.scores import ROUGE_COLUMNS
from unlearun.records.stated import WITH_OPTIONS, Stated, mapping, number


class Source(NamedTuple):
    """Where the values of a metric go.

    Attributes:
        group: The set.
        columns: For each field of an example the column.
        mean: What its value over all examples is of ours; None if nothing.
    """

    group: str
    columns: dict[str, str]
    mean: str | None


_TEXTS = {"input": "question", "ground_truth": "answer", "generation": "generation"}


def _sources() -> dict[str, Source]:
    sources = {}
    for short, group in {"forget": "forget", "retain": "retain", "ra": "real_authors", "wf": "world_facts"}.items():
        kinds: dict[str, tuple[dict[str, str], str | None]] = {
            "q_a_prob": ({"avg_loss": "answer_loss"}, None if group in WITH_OPTIONS else "probability"),
            "q_a_para_prob": ({"avg_loss": "paraphrase_loss"}, None),
            "q_a_pert_prob": ({"avg_loss": "wrong_loss"}, None),
            "q_a_prob_normalised": ({"prob": "probability"}, "probability"),
            "q_a_rouge": ({**{name: name for name in ROUGE_COLUMNS}, **_TEXTS}, "rouge"),
            "truth_ratio": ({"score": "truth_ratio"}, "truth_ratio"),
        }
        sources.update({f"{short}_{kind}": Source(group, *rest) for kind, rest in kinds.items()})
    for name in ("exact_memorization", "extraction_strength"):
        sources[name] = Source("forget", {"score": name}, name)
    return sources


# Their metrics in small letters: some of theirs are written in more than one way.
SOURCES = _sources()
ATTACKS = {
    "mia_loss": "mia",
    "mia_gradnorm": "mia_grad_norm",
    **{name: name for name in ("mia_zlib", "mia_min_k", "mia_min_k_plus_plus", "mia_reference")},
}


def recognises(log: Any) -> bool:  # noqa: ANN401 - any JSON value
    """Say whether a JSON value is such a file, or some of it."""
    return isinstance(log, dict) and any(metric.lower() in {**SOURCES, **ATTACKS} for metric in log)


def stated(log: dict[str, Any], where: str) -> Iterator[Stated]:
    """Yield all values of examples.

    Args:
        log: The JSON value.
        where: The file, for messages.

    Raises:
        UnlearunError: The file is not of the shape that OpenUnlearning writes.
    """
    for metric, result in log.items():
        source = SOURCES.get(metric.lower())
        if source is None:
            continue
        place = f"{where}: {metric}: value_by_index"
        for index, fields in mapping(mapping(result, f"{where}: {metric}").get("value_by_index"), place).items():
            checked = mapping(fields, f"{place}: {index}")
            for field, column in source.columns.items():
                yield Stated(source.group, index, column, checked.get(field), f"{place}: {index}: {field}")


def given(log: dict[str, Any], where: str) -> dict[str, float]:
    """Return the values that the file states without the examples behind them, under our names.

    Areas under ROC curves, and what somebody cut down to its mean. Aggregates are not among them: they are computed.

    Args:
        log: The JSON value.
        where: The file, for messages.
    """
    values = {}
    for metric, result in log.items():
        name = metric.lower()
        source = SOURCES.get(name)
        if source is None and name not in ATTACKS:
            continue
        fields = mapping(result, f"{where}: {metric}")
        value = fields.get("agg_value", fields.get("auc"))
        if value is None or (source is not None and (source.mean is None or fields.get("value_by_index"))):
            continue
        ours = ATTACKS[name] if source is None else f"{source.group}/{source.mean}"
        values[ours] = number(value, f"{where}: {metric}: agg_value")
    return values
