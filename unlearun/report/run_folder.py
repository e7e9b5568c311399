"""The folder of a run: a new one for each, whoever starts it."""

from __future__ import annotations

from pathlib import Path

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import TensorBoardLogger

from unlearun.errors import UnlearunError

OUTPUT_DIR = "outputs"


class RunLogger(TensorBoardLogger):
    """A TensorBoardLogger whose folder is new for each run: OUTPUT/METHOD/1, then 2 and so on.

    Args:
        root: The folder that holds all runs.
        method: The name of the method.
    """

    def __init__(self, root: str | Path, method: str) -> None:
        super().__init__(save_dir=str(root), name=method, default_hp_metric=False)

    @property
    def version(self) -> str:
        """The name of the folder, taken when first asked for; only rank 0's answer is used by Lightning."""
        if self._version is None:
            first = rank_zero_only.rank == 0  # type: ignore[attr-defined]
            self._version = self._take_folder() if first else "0"
        return str(self._version)

    def _take_folder(self) -> str:
        parent = Path(self.root_dir)
        try:
            parent.mkdir(parents=True, exist_ok=True)
            number = max((int(path.name) for path in parent.iterdir() if path.name.isdigit()), default=0) + 1
            while True:  # another run may take the same number at the same moment
                try:
                    (parent / str(number)).mkdir()
                except FileExistsError:
                    number += 1
                else:
                    return str(number)
        except OSError as error:
            raise UnlearunError(
                f"cannot make a run folder in {parent}: {error.strerror}; choose another with --output_dir"
            ) from error
