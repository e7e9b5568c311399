"""The folder of a run: a new one for each, whoever starts it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from unlearun.errors import UnlearunError

OUTPUT_DIR = "outputs"


class RunFolder:
    """OUTPUT/METHOD/1, then 2 and so on: taken once, by rank 0, and never a folder that exists.

    Args:
        root: The folder of all runs.
        method: The name of the method.
    """

    def __init__(self, root: str | Path, method: str) -> None:
        self.parent = Path(root) / method
        self._path: Path | None = None
        self._made: list[Path] = []

    @property
    def path(self) -> Path:
        """The folder, taken when first asked for; on ranks other than 0 a stand-in until `share`."""
        if self._path is None:
            if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
                return self.parent / "unknown"
            self._path = self._take()
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

    @property
    def version(self) -> str:
        """The name of the folder."""
        return self._folder.path.name
