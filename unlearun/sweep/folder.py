"""The folder of a sweep: found again, or a new one; and held, so that no two processes work in it."""

from __future__ import annotations

import fcntl
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from unlearun.errors import UnlearunError, closest
from unlearun.sweep.plan import FILE, RUNNING, WAITING, Plan, Run

LOCK = ".lock"


@dataclass
class Sweep:
    """A plan in its folder.

    Attributes:
        folder: Holds ``sweep.json`` and, of each run N, its output ``N.log`` and a folder ``N``.
        plan: What runs.
    """

    folder: Path
    plan: Plan

    @property
    def command(self) -> str:
        """The command that goes on with it."""
        return shlex.join(["unlearun", "sweep", str(self.folder)])

    def save(self) -> None:
        """Write down how far it is."""
        self.plan.write(self.folder)

    def log(self, run: Run) -> Path:
        """Return the file that holds what a run has printed."""
        return self.folder / f"{run.number}.log"

    def home(self, run: Run) -> Path:
        """Return the ``output_dir`` of a run."""
        return self.folder / str(run.number)

    def again(self, retry: bool = False) -> None:
        """Put what was broken off back among those that wait.

        Args:
            retry: Whether to do the same with what has failed.
        """
        for run in self.plan.runs:
            if run.status == RUNNING or (retry and run.ended and run.reason):
                run.status, run.reason, run.seconds, run.folder = WAITING, "", None, ""


def open_sweep(folder: Path) -> Sweep:
    """Open the folder of a sweep.

    Raises:
        UnlearunError: It is none.
    """
    if not (folder / FILE).is_file():
        beside = folder.parent
        known = [path.parent.name for path in beside.glob(f"*/{FILE}")] if beside.is_dir() else []
        raise UnlearunError(
            f"{folder} holds no {FILE}, so it is no folder of a sweep.{closest(folder.name, known)} "
            "Start one with --grid: unlearun sweep --help"
        )
    return Sweep(folder, Plan.read(folder))


def find_or_make(root: Path, plan: Plan, name: str | None, default: str) -> Sweep:
    """Return the sweep of this plan that was worked on last; a new one where there is none.

    Args:
        root: The folder of all sweeps.
        plan: What is to run.
        name: What the user calls it, if anything.
        default: What a new one is called, with a number behind.

    Raises:
        UnlearunError: The name belongs to another sweep, or no folder can be made.
    """
    if name is not None and not re.fullmatch(r"[\w.+-]*\w[\w.+-]*", name):
        raise UnlearunError(f"--name is {name!r}; expected letters, digits, and any of . _ + -")
    if name is not None and (root / name / FILE).is_file():
        named = open_sweep(root / name)
        if not named.plan.same_as(plan):
            raise UnlearunError(
                f"{named.folder} holds another sweep, of other options, configs or values; choose another --name, or "
                f"go on with it: {named.command}"
            )
        return named
    for file in sorted(root.glob(f"*/{FILE}"), key=_age) if name is None else ():
        sweep = _readable(file.parent)
        if sweep is not None and sweep.plan.same_as(plan):
            return sweep
    sweep = Sweep(_take(root, name, default), plan)
    sweep.save()
    return sweep


@contextmanager
def held(sweep: Sweep) -> Iterator[int | None]:
    """Hold the folder of a sweep for this process, and for its children if they get the descriptor.

    A child that outlives a killed sweep so keeps the next one from starting beside it, in the same memory.

    Yields:
        The descriptor; None where the file system has no locks.

    Raises:
        UnlearunError: Another process holds it.
    """
    descriptor = os.open(sweep.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield _lock(descriptor, sweep.folder)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> int | None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
        raise UnlearunError(
            f"{folder} is at work already ({holder or 'process unknown'}); wait for it to end, or end it first"
        ) from None
    except OSError:  # a file system without locks
        return None
    note(descriptor, [os.getpid()])
    return descriptor


def note(descriptor: int | None, processes: list[int]) -> None:
    """Write into the lock who holds it, for the message to others."""
    if descriptor is not None:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {', '.join(map(str, processes))}".encode(), 0)


def _readable(folder: Path) -> Sweep | None:
    try:
        return Sweep(folder, Plan.read(folder))
    except UnlearunError:  # of another version, or broken: not the one that is looked for
        return None


def _age(file: Path) -> float:
    """Sort what was written last first."""
    return -file.stat().st_mtime


def _take(root: Path, name: str | None, default: str) -> Path:
    try:
        root.mkdir(parents=True, exist_ok=True)
        if name is not None:
            folder = root / name
            folder.mkdir(exist_ok=True)
            if any(folder.iterdir()):
                raise UnlearunError(f"{folder} holds files, but no {FILE}; choose another --name")
            return folder
        taken = [re.fullmatch(rf"{re.escape(default)}-(\d+)", path.name) for path in root.iterdir()]
        number = max((int(found[1]) for found in taken if found), default=0) + 1
        while True:  # another sweep may take the same number at the same moment
            try:
                (root / f"{default}-{number}").mkdir()
            except FileExistsError:
                number += 1
            else:
                return root / f"{default}-{number}"
    except OSError as error:
        raise UnlearunError(
            f"cannot make a folder for the sweep in {root}: {error.strerror}; choose another with --output_dir"
        ) from error
