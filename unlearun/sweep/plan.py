"""What a sweep runs, and how far it is: ``sweep.json``."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from unlearun.errors import UnlearunError
from unlearun.files import write_whole
from unlearun.records.evaluation import read_json
from unlearun.shipped import find_config
from unlearun.sweep.values import plain

FILE = "sweep.json"
KIND = "unlearun sweep"
MOST = 10_000
WAITING, RUNNING, DONE, DIVERGED, FAILED = "waiting", "running", "done", "diverged", "failed"
STATES = (WAITING, RUNNING, DONE, DIVERGED, FAILED)


@dataclass
class Run:
    """One combination.

    Attributes:
        number: Its place in the plan, from 1; its log and folder are called so.
        values: What each key of the grid is.
        status: One of `STATES`.
        reason: What went wrong, where something did.
        folder: Its run folder, seen from that of the sweep.
        seconds: How long it took.
        forget_quality: At the end.
        utility_before: Model utility at step 0; None where it was not measured or is not comparable.
        utility_after: Model utility at the end.
        measured: A digest of what was measured on what: runs with another one are not comparable.
        trial: Its number in the study, if it was drawn.
    """

    number: int
    values: dict[str, str]
    status: str = WAITING
    reason: str = ""
    folder: str = ""
    seconds: float | None = None
    forget_quality: float | None = None
    utility_before: float | None = None
    utility_after: float | None = None
    measured: str = ""
    trial: int | None = None

    @property
    def ended(self) -> bool:
        """Whether it has come to an end, good or bad."""
        return self.status not in (WAITING, RUNNING)

    @property
    def label(self) -> str:
        """Its values, as they are written on a command line."""
        return " ".join(f"{key}={value}" for key, value in self.values.items())


@dataclass
class Plan:
    """All combinations, and what they have in common.

    Attributes:
        arguments: Options of fit that all runs get.
        grid: Values of each key, of which every combination runs.
        search: Ranges or values of each key, of which some combinations are drawn.
        sampler: How they are drawn.
        trials: How many.
        configs: A digest of each config file, for a changed one makes other runs.
        directory: Where the user stood: paths may be relative to it.
        launcher: What stands before each run's command.
        jobs: How many run at a time.
        runs: The combinations; of a search, those drawn so far.
    """

    arguments: list[str]
    grid: dict[str, list[str]] = field(default_factory=dict)
    search: dict[str, str] = field(default_factory=dict)
    sampler: str = ""
    trials: int = 0
    configs: dict[str, str] = field(default_factory=dict)
    directory: str = field(default_factory=os.getcwd)
    launcher: str = ""
    jobs: int = 1
    runs: list[Run] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Lay out the runs of a grid."""
        if self.grid and not self.runs:
            if (count := _count(self.grid)) > MOST:
                raise UnlearunError(f"the grid has {count} combinations, more than {MOST}; use --search with --trials")
            combinations = product(*self.grid.values())
            self.runs = [Run(n, dict(zip(self.grid, values, strict=True))) for n, values in enumerate(combinations, 1)]

    @property
    def total(self) -> int:
        """How many runs there will be."""
        return max(self.trials, len(self.runs)) if self.search else len(self.runs)

    @property
    def keys(self) -> list[str]:
        """What varies."""
        return list(self.grid or self.search)

    @property
    def place(self) -> Path:
        """Where the runs stand: where the user stood when the sweep began, if that is still there."""
        began = Path(self.directory)
        return began if began.is_dir() else Path.cwd()

    def same_as(self, other: Plan) -> bool:
        """Say whether another plan is the same work, however it is launched and however many are drawn."""
        names = ("arguments", "grid", "search", "sampler", "configs", "directory")
        return all(getattr(self, name) == getattr(other, name) for name in names)

    def write(self, folder: Path) -> None:
        """Write it into the folder of the sweep."""
        write_whole(folder / FILE, json.dumps({"kind": KIND, **asdict(self)}, indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Plan:
        """Read what `write` wrote.

        Raises:
            UnlearunError: There is none, or it is none of ours.
        """
        stored = read_json(folder / FILE)
        if not isinstance(stored, dict) or stored.pop("kind", None) != KIND:
            raise UnlearunError(f"{folder / FILE} is no plan of a sweep; expected what unlearun sweep writes")
        try:
            runs = [Run(**run) for run in stored.pop("runs")]
            return cls(**stored, runs=runs)
        except (AttributeError, KeyError, TypeError) as error:
            raise UnlearunError(f"{folder / FILE} is broken ({error}); start a new sweep with --name") from error


def fit_arguments(arguments: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """Return the options of one run.

    What names a whole part (``config``, ``model``) stands right behind the configs that all runs have, since it would
    otherwise undo the single options before it.

    Args:
        arguments: What all runs have.
        values: What this one has.

    >>> fit_arguments(["--config", "rmu", "--model.alpha", "2"], {"model.gamma": "3", "config": "x"})
    ['--config', 'rmu', '--config=x', '--model.alpha', '2', '--model.gamma=3']
    """
    after = max((at + length for at, length, _ in _configs(arguments)), default=0)
    whole = [f"--{key}={value}" for key, value in values.items() if "." not in key]
    single = [f"--{key}={value}" for key, value in values.items() if "." in key]
    return [*arguments[:after], *whole, *arguments[after:], *single]


def check_keys(arguments: Sequence[str], keys: Sequence[str]) -> None:
    """Check that nothing that varies is given as an option, too, and that no option hinders the runs.

    Raises:
        UnlearunError: One is.
    """
    given = {plain(argument.partition("=")[0]) for argument in arguments if argument.startswith("--")}
    for key in keys:
        if key in given and key != "config":
            raise UnlearunError(f"{key} is to vary, but --{key} is given, too; leave one of them out")
    if "print_config" in given:
        raise UnlearunError("--print_config prints, and runs nothing; leave it out")


def digests(arguments: Sequence[str], values: Sequence[str] = (), directory: str | Path = "") -> dict[str, str]:
    """Return a digest of each config file.

    Args:
        arguments: Options of fit; those named by ``--config`` are read.
        values: Names of further ones.
        directory: Where names that are relative begin; the current folder if it is empty.

    Raises:
        UnlearunError: There is no such file.
    """
    names = dict.fromkeys([*(name for _, _, name in _configs(arguments)), *values])
    files = {name: find_config(str(path) if (path := Path(directory, name)).is_file() else name) for name in names}
    return {name: hashlib.sha256(file.read_bytes()).hexdigest()[:16] for name, file in files.items()}


def _configs(arguments: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """Yield the place of each config among the options, how many words it takes, and its name."""
    for at, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag in ("--config", "-c") and equals:
            yield at, 1, value
        elif flag in ("--config", "-c") and at + 1 < len(arguments):
            yield at, 2, arguments[at + 1]


def _count(grid: Mapping[str, Sequence[Any]]) -> int:
    return prod(len(values) for values in grid.values())
