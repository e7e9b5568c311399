"""The folder of a run: a new one for each, whoever starts it, or that of a run that goes on."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from unlearun.errors import UnlearunError

try:
    import fcntl
except ImportError:  # Windows: there nobody notices two runs in one folder
    fcntl = None  # type: ignore[assignment]

OUTPUT_DIR = "outputs"


class RunFolder:
    """OUTPUT/METHOD/1, then 2 and so on: taken once, by rank 0, and never a folder that exists.

    It is held until the run ends, or the process, so that no other run writes there.

    Args:
        root: The folder of all runs.
        method: The name of the method.
        existing: The folder of a run that goes on, instead of a new one.
    """

    def __init__(self, root: str | Path, method: str, existing: Path | None = None) -> None:
        self.existing = existing
        self.parent = Path(root) / method if existing is None else existing.parent
        self._path: Path | None = None
        self._made: list[Path] = []
        self._lock: int | None = None

    @property
    def path(self) -> Path:
        """The folder, taken when first asked for; on ranks other than 0 a stand-in until `share`."""
        if self._path is None:
            if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
                return self.parent / "unknown"
            self._path = self._take() if self.existing is None else self.existing
            self._hold(self._path)
        return self._path

    @property
    def taken(self) -> Path | None:
        """The folder, if it was asked for."""
        return self._path

    def share(self, trainer: Trainer) -> Path:
        """Let rank 0 tell all processes which folder it has taken.

        Args:
            trainer: Its processes are connected already.

        Returns:
            The folder, the same on all ranks.
        """
        name = trainer.strategy.broadcast(self.path.name if trainer.is_global_zero else None)
        self._path = self.parent / str(name)
        return self._path

    def discard(self) -> None:
        """Remove the folder and those above that were made for it, as far as they are empty."""
        for folder in self._made:
            with suppress(OSError):  # it is gone already, something stands in it, or another run does
                folder.rmdir()
        self._path = None

    def release(self) -> None:
        """Let other runs in."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _hold(self, folder: Path) -> None:
        """Keep other runs out; the system lets go when the process ends."""
        if fcntl is None:
            return
        try:
            lock = os.open(folder, os.O_RDONLY)  # the folder itself: a file for it would stay behind
        except OSError as error:
            raise UnlearunError(f"cannot open the run folder {folder}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise UnlearunError(f"{folder} is in use by another run; wait for it, or stop it") from error
        except OSError:  # a file system without locks
            os.close(lock)
            return
        self._lock = lock

    def _take(self) -> Path:
        above = [self.parent, self.parent.parent]
        missing = [folder for folder in above if not folder.exists()]
        try:
            self.parent.mkdir(parents=True, exist_ok=True)
            number = max((int(path.name) for path in self.parent.iterdir() if path.name.isdigit()), default=0) + 1
            while True:  # another run may take the same number at the same moment
                try:
                    (self.parent / str(number)).mkdir()
                except FileExistsError:
                    number += 1
                else:
                    self._made = [self.parent / str(number), *missing]
                    return self.parent / str(number)
        except OSError as error:
            raise UnlearunError(
                f"cannot make a run folder in {self.parent}: {error.strerror}; choose another with --output_dir"
            ) from error


class RunLogger(TensorBoardLogger):
    """TensorBoard's events in a run folder.

    Args:
        folder: The folder of the run.
    """

    def __init__(self, folder: RunFolder) -> None:
        super().__init__(save_dir=str(folder.parent), name="", default_hp_metric=False)
        self._folder = folder

    def go_on(self, step: int) -> None:
        """Drop what an earlier part of the run wrote of the step that comes next, and of later ones.

        Lightning counts the steps of a training log from 0, so the evaluation after ``step`` steps goes with them.

        Args:
            step: How many steps were taken.
        """
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        begins = SessionLog(status=SessionLog.START)
        self.experiment._get_file_writer().add_event(Event(step=step, session_log=begins))

    @property
    def version(self) -> str:
        """The name of the folder."""
        return self._folder.path.name
