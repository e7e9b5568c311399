"""A run as its folder has it: config, evaluations, and the curves of its training."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from unlearun.errors import UnlearunError
from unlearun.records import Evaluation, Standing, evaluation_files
from unlearun.report.changes import Changes
from unlearun.report.summary import other_rows

Curve: TypeAlias = "tuple[list[int], list[float]]"
# Training logs at most so many points to a picture; more are thinned out evenly.
POINTS = 2000
LOSSES, ATTACKS = "train/", "attack/"
LEARNING = ("FineTune",)


@dataclass
class ReportedRun:
    """What a report tells of.

    Attributes:
        folder: The run folder.
        name: What the report calls it.
        config: All arguments of the run; empty where the folder has none that can be read.
        evaluations: What was found, by step.
    """

    folder: Path
    name: str
    config: dict[str, Any]
    evaluations: list[Evaluation] = field(repr=False)

    @property
    def first(self) -> Evaluation | None:
        """What was found at step 0, if it was measured and is not all there is."""
        start = self.evaluations[0]
        return start if start.step == 0 and len(self.evaluations) > 1 else None

    @property
    def last(self) -> Evaluation:
        """What was found last."""
        return self.evaluations[-1]

    @property
    def method(self) -> str:
        """The method's name."""
        return str(self.last.fingerprint.get("method") or "a model")

    @property
    def trained(self) -> bool:
        """Whether the run has trained: one that only measured has a single evaluation, and leaves no model."""
        left = any((self.folder / name).is_dir() for name in ("model", "checkpoints"))
        return self.last.step > 0 and (len(self.evaluations) > 1 or left)

    @property
    def learns(self) -> bool:
        """Whether its method learns, to make a target or a retain model, and promises to forget nothing."""
        return self.method in LEARNING

    @property
    def like_the_last(self) -> list[Evaluation]:
        """The evaluations of the same rows as the last, which alone can be drawn as one way."""
        return [one for one in self.evaluations if not other_rows(one, self.last)]

    @property
    def comparable(self) -> bool:
        """Whether start and end were measured on the same rows."""
        return self.first is not None and not self.other_rows

    @property
    def other_rows(self) -> list[str]:
        """The sets that start and end both have, but with other rows."""
        return [] if self.first is None else other_rows(self.first, self.last)

    @cached_property
    def changes(self) -> Changes:
        """What start and end differ in, where they can be compared; resampled once for all that a report says."""
        return Changes(self.first if self.comparable else None, self.last)

    @cached_property
    def standing(self) -> Standing | None:
        """How it stands against attacks, if it was attacked."""
        found = Standing.read(self.folder / "attacks" / "summary.json")
        return None if found is None else replace(found, name=self.name)

    @property
    def losses(self) -> dict[str, Curve]:
        """The parts of the loss by name, with the step of each value."""
        return {name: curve for name, curve in self._curves(LOSSES).items() if "loss" in name}

    @property
    def attacks(self) -> dict[str, Curve]:
        """What an attack found while it trained, by name, with the step of each value."""
        return self._curves(ATTACKS)

    def _curves(self, prefix: str) -> dict[str, Curve]:
        return {name.removeprefix(prefix): curve for name, curve in self._scalars.items() if name.startswith(prefix)}

    @cached_property
    def _scalars(self) -> dict[str, Curve]:
        """What TensorBoard has of these curves."""
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        board = EventAccumulator(str(self.folder), size_guidance={"scalars": POINTS, "images": 1, "tensors": 1})
        try:
            board.Reload()
            tags = board.Tags()["scalars"]
        except Exception:  # a broken event file costs a picture, not the report
            return {}
        curves = {}
        for tag in tags:
            if tag.startswith((LOSSES, ATTACKS)):
                values = board.Scalars(tag)
                curves[tag] = ([point.step for point in values], [point.value for point in values])
        return curves


def read_runs(folders: list[Path]) -> list[ReportedRun]:
    """Read run folders.

    Args:
        folders: Each with an ``eval`` folder.

    Returns:
        The runs in the order given, named by what tells their paths apart.

    Raises:
        UnlearunError: A folder holds no run, or one stands there twice.
    """
    resolved = [folder.resolve() for folder in folders]
    if twice := [str(folder) for folder, path in zip(folders, resolved, strict=True) if resolved.count(path) > 1]:
        raise UnlearunError(f"{twice[0]} is named twice; name each run once")
    return [_read(folder, name) for folder, name in zip(folders, short_names(resolved), strict=True)]


def short_names(folders: list[Path]) -> list[str]:
    """Name folders by the fewest last parts of their paths that tell all apart; by two at least.

    >>> short_names([Path("/a/rmu/1"), Path("/a/npo/1")]), short_names([Path("/a/x/rmu/1"), Path("/a/y/rmu/1")])
    (['rmu/1', 'npo/1'], ['x/rmu/1', 'y/rmu/1'])
    """
    most = max(len(folder.parts) for folder in folders)
    for count in range(2, most + 1):
        names = ["/".join(folder.parts[-count:]) for folder in folders]
        if len({*names}) == len(names):
            return names
    return [str(folder) for folder in folders]


def _read(folder: Path, name: str) -> ReportedRun:
    try:
        files = evaluation_files(folder)
        found = "has no eval/step=N.json" if folder.is_dir() else "is no folder"
    except OSError as error:  # too long a name
        raise UnlearunError(f"{folder} cannot be read: {error.strerror}; expected a run folder") from error
    if not files:
        raise UnlearunError(f"{folder} {found}; expected a run folder, such as outputs/rmu/1")
    evaluations = [Evaluation.read(file) for file in files.values()]
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        config = None
    return ReportedRun(folder, name, config if isinstance(config, dict) else {}, evaluations)
