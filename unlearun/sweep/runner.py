"""Runs as child processes: started, waited for, stopped."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from unlearun.errors import UnlearunError
from unlearun.sweep.children import Child, Stop, read_launcher
from unlearun.sweep.folder import Sweep, note
from unlearun.sweep.outcome import judge, newest, run_folders, tail
from unlearun.sweep.plan import RUNNING, Run, fit_arguments

POLL = 0.1
GRACE = 10.0  # seconds that a child has to tidy up
SLOT = "{slot}"


class Source(Protocol):
    """Where runs come from: the list of a grid, or a search that draws them."""

    def next(self) -> Run | None:
        """Return the next one; None where there is none left to start."""

    def ended(self, run: Run) -> None:
        """Learn what became of one."""


class Listed:
    """The runs of a grid.

    Args:
        sweep: Holds them.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep

    def next(self) -> Run | None:
        """Return the first that waits."""
        return next((run for run in self.sweep.plan.runs if not run.ended and run.status != RUNNING), None)

    def ended(self, run: Run) -> None:
        """Learn nothing: a grid is fixed."""


class Runner:
    """Keeps up to ``jobs`` runs at work until there are none left.

    Args:
        sweep: What runs.
        source: Gives the runs.
        tell: Takes each run that has ended.
        lock: The descriptor that holds the folder.
    """

    def __init__(self, sweep: Sweep, source: Source, tell: Callable[[Run], None], lock: int | None = None) -> None:
        self.sweep = sweep
        self.source = source
        self.tell = tell
        self.lock = lock
        self.launcher = read_launcher(sweep.plan.launcher)
        self.children: list[Child] = []

    def run(self) -> None:
        """Run all.

        Raises:
            KeyboardInterrupt: The user wants it to stop; no child is left, and what was broken off waits again.
            Terminated: The system wants it to stop; likewise.
        """
        with Stop() as stop:
            try:
                while not stop.count:
                    self._start_more()
                    if not self.children:
                        return
                    time.sleep(POLL)
                    self._take_ended()
                self._take_ended()
            finally:
                if self.children:
                    self._stop(stop)
        raise stop.end

    def _start_more(self) -> None:
        while len(self.children) < self.sweep.plan.jobs and (run := self.source.next()) is not None:
            run.status = RUNNING
            self.sweep.save()  # before it starts, so that nothing at work is ever taken for waiting
            taken = {child.slot for child in self.children}
            slot = next(slot for slot in range(self.sweep.plan.jobs) if slot not in taken)
            self.children.append(self._start(run, slot))
            note(self.lock, [os.getpid(), *(child.process.pid for child in self.children)])

    def _start(self, run: Run, slot: int) -> Child:
        home, before = self.sweep.home(run), run_folders(self.sweep.home(run))
        command = [*(word.replace(SLOT, str(slot)) for word in self.launcher), *self.command(run)]
        try:
            home.mkdir(exist_ok=True)
            with self.sweep.log(run).open("ab") as log:
                log.write(f"$ {shlex.join(command)}\n".encode())
                log.flush()
                log_start = log.tell()
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=self.sweep.plan.place,
                    start_new_session=True,  # Ctrl-C is for us, and we for the children
                    pass_fds=() if self.lock is None else (self.lock,),
                )
        except OSError as error:
            raise UnlearunError(f"run {run.number} cannot be started: {error}") from error
        return Child(run, process, slot, log_start, before)

    def command(self, run: Run) -> list[str]:
        """Return the command of a run, without the launcher."""
        home = self.sweep.home(run)
        output = home if self.sweep.plan.place.samefile(Path.cwd()) else home.absolute()
        options = fit_arguments(self.sweep.plan.arguments, run.values)
        return [sys.executable, "-m", "unlearun", "fit", *options, "--output_dir", str(output)]

    def _take_ended(self) -> None:
        for child in [child for child in self.children if child.process.poll() is not None]:
            self._take(child)

    def _take(self, child: Child) -> None:
        run, home = child.run, self.sweep.home(child.run)
        self.children.remove(child)
        folder = newest(run_folders(home) - child.before)
        judge(run, folder, child.process.returncode, tail(self.sweep.log(run), child.log_start))
        run.seconds = round(time.monotonic() - child.begun, 1)
        run.folder = "" if folder is None else str(folder.relative_to(self.sweep.folder))
        self.source.ended(run)
        self.sweep.save()
        self.tell(run)

    def _stop(self, stop: Stop) -> None:
        """End all children, at once where the user asks again."""
        asked, until = stop.count, time.monotonic() + GRACE
        for child in self.children:
            child.send(signal.SIGTERM)
        while any(child.process.poll() is None for child in self.children):
            if stop.count > asked or time.monotonic() > until:
                for child in self.children:
                    child.send(signal.SIGKILL)
            time.sleep(POLL / 2)
        self.children = []
        self.sweep.again()
        self.sweep.save()
