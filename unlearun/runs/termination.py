"""What happens when a scheduler ends a run."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lightning.pytorch import Trainer

from unlearun.errors import Terminated


class Termination:
    """Notes SIGTERM, so that a run can leave what it has reached before it ends.

    Lightning's own handler speaks to the other processes at once, in the middle of whatever they say to each other.
    """

    def __init__(self) -> None:
        self._received = False

    def watch(self) -> None:
        """Take the place of other handlers; Lightning brings back those of before its loops."""
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) != self._note:
            signal.signal(signal.SIGTERM, self._note)

    def is_due(self, trainer: Trainer) -> bool:
        """Say whether any process was told to end; all processes must ask together.

        Args:
            trainer: Connects them.
        """
        # Lightning's handler may have noted it, before ours was there.
        return trainer.strategy.reduce_boolean_decision(self._received or trainer.received_sigterm, all=False)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._received = True


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """End at once, with 143, where there is nothing to keep: Lightning leaves a handler that is there alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
