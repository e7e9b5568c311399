"""What a run was made with: versions, precision, data and their digests, and settings that differ between runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from unlearun.records import Evaluation
from unlearun.report.reported_run import ReportedRun

# Where a run leaves its files and how it shows that it is alive differ without meaning anything.
UNINTERESTING = ("output_dir", "resume", "ckpt_path", "trainer.enable_progress_bar", "trainer.logger")


class DataSet(NamedTuple):
    """An evaluated set.

    Attributes:
        name: The set.
        role: What part it plays.
        rows: How many rows were measured.
        source: Where they come from.
        digest: Of all their texts.
    """

    name: str
    role: str
    rows: str
    source: str
    digest: str


def facts(run: ReportedRun) -> list[tuple[str, str]]:
    """Say what a run was made with.

    Args:
        run: The run.
    """
    made: dict[str, Any] = run.last.fingerprint
    template = made.get("template") or {}
    found = {
        "method": made.get("method"),
        "model": made.get("model"),
        "steps": run.last.step,
        "optimizer": _optimizer(run.config),
        "precision": made.get("precision"),
        "weights": made.get("dtype"),
        "retain model": made.get("retain_reference"),
        "checkpoint": made.get("checkpoint"),
        "prompt": "the tokenizer's chat template" if template.get("chat") else template.get("prompt"),
        "longest row": f"{template['max_length']} tokens" if template.get("max_length") else None,
        "tokenizer digest": made.get("tokenizer"),
        "seed": run.config.get("seed_everything"),
        **_asked_otherwise(made),
        "versions": ", ".join(f"{name} {version}" for name, version in versions(made).items()),
    }
    return [(name, str(value)) for name, value in found.items() if value not in (None, "")]


def versions(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the versions that a fingerprint names; none where it holds something else.

    Args:
        fingerprint: Of an evaluation.
    """
    found = fingerprint.get("versions")
    return found if isinstance(found, dict) else {}


def data_sets(evaluation: Evaluation) -> list[DataSet]:
    """Say what was measured.

    Args:
        evaluation: With its fingerprint.
    """
    sets: dict[str, dict[str, Any]] = evaluation.fingerprint.get("sets") or {}
    return [
        DataSet(
            name,
            str(found.get("role", "")),
            str(found.get("rows", "")),
            _source(found.get("source", "")),
            str(found.get("digest", "")),
        )
        for name, found in sets.items()
    ]


def flat(config: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Write a config with one dotted name a setting.

    Args:
        config: Nested mappings.
        before: What stands before each name.

    >>> flat({"model": {"class_path": "RMU", "init_args": {"alpha": 1.0}}, "seed": 0})
    {'model': 'RMU', 'model.alpha': '1.0', 'seed': '0'}
    """
    found: dict[str, str] = {}
    for key, value in config.items():
        name = before.rstrip(".") if key == "class_path" else f"{before}{key}"
        if key == "init_args" and isinstance(value, Mapping):
            found |= flat(value, before)
        elif isinstance(value, Mapping) and value:
            found |= flat(value, f"{before}{key}.")
        else:
            found[name] = str(value).rpartition(".")[2] if key == "class_path" else _as_written(value)
    return found


def config_differences(configs: list[dict[str, str]]) -> list[tuple[str, list[str]]]:
    """Return the settings in which configs differ.

    Args:
        configs: What `flat` made of each.

    Returns:
        Each with the value of every config, a dash where it has no such setting; an empty config, of a run whose own
        cannot be read, makes no difference.

    >>> config_differences([{"lr": "0.1", "seed": "0"}, {"lr": "0.2", "seed": "0"}])
    [('lr', ['0.1', '0.2'])]
    """
    names = dict.fromkeys(name for config in configs for name in config)
    rows = [(name, [config.get(name, "\N{EN DASH}") for config in configs]) for name in names]
    told = [at for at, config in enumerate(configs) if config]  # a run without a config differs in nothing
    return [(name, cells) for name, cells in rows if len({cells[at] for at in told}) > 1 and name not in UNINTERESTING]


def short_model(model: object) -> str:
    """Name a model by the last two parts of its path.

    Args:
        model: A hub id or a path.

    >>> short_model("/data/models/tiny"), short_model("gpt2")
    ('models/tiny', 'gpt2')
    """
    return "/".join(str(model or "a model").rstrip("/").split("/")[-2:])


def _asked_otherwise(fingerprint: Mapping[str, Any]) -> dict[str, str]:
    """Say how sets were asked that were asked in a way of their own."""
    found = {}
    common = fingerprint.get("template") or {}
    for name, facts_of_set in (fingerprint.get("sets") or {}).items():
        own = facts_of_set.get("template") or {}
        words = [f"{key}: {value}" for key, value in own.items() if value != common.get(key)]
        words += [f"{key}: {value}" for key, value in (facts_of_set.get("generation") or {}).items()]
        if words:
            found[f"{name} was asked with"] = ", ".join(words)
    return found


def _as_written(value: object) -> str:
    """Write a value as YAML has it."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return str(value)


def _optimizer(config: Mapping[str, Any]) -> str | None:
    optimizer = config.get("optimizer")
    if not isinstance(optimizer, Mapping):
        return None
    arguments = optimizer.get("init_args") or {}
    rate = f", lr {arguments['lr']}" if "lr" in arguments else ""
    return f"{str(optimizer.get('class_path', '')).rpartition('.')[2]}{rate}"


def _source(source: object) -> str:
    if isinstance(source, Mapping):
        return ", ".join(str(value) for value in source.values())
    return str(source)
