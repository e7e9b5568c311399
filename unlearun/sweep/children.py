"""The processes of runs, the signals to them and to us, and the launcher before them."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from unlearun.errors import Terminated, UnlearunError
from unlearun.sweep.plan import Run


class Stop:
    """Counts requests to stop, Ctrl-C among them, while it is entered: children must not be left behind.

    Attributes:
        count: How many there were.
        end: What to end with: with 130 after Ctrl-C, with 143 after SIGTERM.
    """

    def __init__(self) -> None:
        self.count = 0
        self.end: KeyboardInterrupt | Terminated = KeyboardInterrupt()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        names = ("SIGINT", "SIGTERM", "SIGHUP") if threading.current_thread() is threading.main_thread() else ()
        for number in (getattr(signal, name) for name in names if hasattr(signal, name)):
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup and the like want it so
                self._before[number] = signal.signal(number, self._seen)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _seen(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if number == signal.SIGTERM:
            self.end = Terminated()


@dataclass
class Child:
    """A run at work.

    Attributes:
        run: What it runs.
        process: Its process, which leads a group of its own.
        slot: Which of the places for runs it has.
        begun: When it started, by the monotonic clock.
        log_start: How long its log was then.
        before: The run folders that were there.
    """

    run: Run
    process: subprocess.Popen[bytes]
    slot: int
    log_start: int
    before: set[Path]
    begun: float = field(default_factory=time.monotonic)

    def send(self, number: int) -> None:
        """Send a signal to it and all processes that it has started."""
        if self.process.poll() is None:
            with suppress(ProcessLookupError):  # it has ended since
                os.killpg(self.process.pid, number)


def read_launcher(text: str) -> list[str]:
    """Split the launcher into words.

    Args:
        text: What stands before each run's command; ``{slot}`` in it is the number of the place that a run has.

    Raises:
        UnlearunError: It has an open quote, or names no command.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UnlearunError(f"--launcher {text!r} cannot be read: {error}") from error
    if words and shutil.which(words[0]) is None:
        raise UnlearunError(f"--launcher {text!r}: there is no command {words[0]!r} here")
    return words
