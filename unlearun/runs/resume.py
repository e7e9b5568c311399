"""Which run goes on, and from which checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from unlearun.errors import UnlearunError
from unlearun.records import evaluation_files

SHOWN = 3
# What may differ between a run and the command that lets it go on: where things stand, and what is shown.
FREE = (
    "ckpt_path",
    "resume",
    "output_dir",
    "data.cache",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
)


def find_run(parent: Path, config: Mapping[str, Any]) -> Path:
    """Return the newest run folder that was made with a config.

    Args:
        parent: The folder of a method's runs.
        config: All arguments, as in a run's config.yaml.

    Raises:
        UnlearunError: There is none; the newest one's differences are named.
    """
    folders = sorted((one for one in parent.glob("*") if one.name.isdigit()), key=lambda one: -int(one.name))
    nearest = ""
    for folder in folders:
        stored = read_config(folder)
        if stored is None:
            continue
        differ = differences(stored, config)
        if not differ:
            return folder
        more = f" and {len(differ) - SHOWN} more" if len(differ) > SHOWN else ""
        nearest = nearest or f"; {folder} differs in {', '.join(differ[:SHOWN])}{more}"
    raise UnlearunError(
        f"no run in {parent} has this config, so there is none to go on with{nearest}. "
        "Start one without --ckpt_path last, or name its folder: --resume RUN"
    )


def check_run(folder: str | Path) -> Path:
    """Return a run folder that can go on.

    Args:
        folder: What the user named.

    Raises:
        UnlearunError: It is no run folder.
    """
    path = Path(folder)
    if not (path / "config.yaml").is_file():
        missing = "has no config.yaml" if path.is_dir() else "does not exist"
        raise UnlearunError(f"{folder} {missing}; --resume takes a run folder, such as outputs/rmu/1")
    return path


def newest_checkpoint(folder: Path, evaluated: bool = False) -> Path | None:
    """Return the checkpoint of a run that was written last, if there is one.

    Args:
        folder: The run folder.
        evaluated: Whether only those count whose step was evaluated.
    """
    found = [one for one in (folder / "checkpoints").glob("*.ckpt") if not one.name.startswith(".")]
    if evaluated:
        steps = {str(step) for step in evaluation_files(folder)}
        found = [one for one in found if one.stem.rpartition("step=")[2] in steps]
    return max(found, key=lambda one: one.stat().st_mtime_ns, default=None)


def is_finished(folder: Path) -> bool:
    """Say whether a run has ended: it was evaluated to its end, and its model saved.

    Args:
        folder: The run folder.
    """
    return (folder / "model").is_dir()


def read_config(folder: Path) -> Mapping[str, Any] | None:
    """Return what a run was made with, if its config.yaml can be read.

    Args:
        folder: The run folder.
    """
    try:
        found = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return found if isinstance(found, Mapping) else None


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Say in which arguments two runs differ, but for where they stand and what they show.

    Args:
        there: All arguments of the one.
        here: All arguments of the other.
    """
    one, other = _flat(there), _flat(here)
    return [
        f"{name} ({one.get(name)!r} there, {other.get(name)!r} here)"
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name)
    ]


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:  # noqa: ANN401 - any value of a config
    """Map dotted names to values; what is None is as good as left out."""
    if not isinstance(config, Mapping):
        return {} if config is None or prefix.rstrip(".") in FREE else {prefix.rstrip("."): config}
    return {name: value for key, inner in config.items() for name, value in _flat(inner, f"{prefix}{key}.").items()}
