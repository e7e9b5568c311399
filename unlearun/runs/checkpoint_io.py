"""Checkpoints on the disk: whole or not at all, and nothing but tensors and plain values."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from unlearun.errors import UnlearunError
from unlearun.files import written_whole
from unlearun.models import read_plain

log = logging.getLogger(__name__)


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes beside the place, to the disk, and then renames; reads without running what a file may hold."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:  # noqa: ANN401
        """Write a checkpoint; what stood there before stays until the new one is whole.

        Args:
            checkpoint: What Lightning has gathered.
            path: Where to.
            storage_options: Not used.

        Raises:
            UnlearunError: The disk is full, or cannot be written.
        """
        if "://" in str(path):  # a place that Lightning reaches through fsspec
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        file = Path(path)
        try:
            with written_whole(file) as scratch:
                torch.save(checkpoint, scratch)
        except (OSError, RuntimeError) as error:  # torch's own writer raises the latter where the disk is full
            raise UnlearunError(_unwritten(file, error)) from error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:  # noqa: ANN401
        """Read a checkpoint.

        Args:
            path: Where it is.
            map_location: Not used: all goes to the CPU first.
            weights_only: False runs what the file says, if the user asks for it.

        Raises:
            UnlearunError: There is none, or it holds something else than tensors and plain values.
        """
        if weights_only is False:
            log.warning("weights_only is false: %s is unpickled, which runs what it says", path)
        if weights_only is False or "://" in str(path):
            return super().load_checkpoint(path, weights_only=weights_only is not False)
        stored: dict[str, Any] = read_plain(Path(path))
        return stored


def _unwritten(file: Path, error: Exception) -> str:
    place = file.with_name(file.name.lstrip("."))
    others = [one for one in file.parent.glob("*.ckpt") if one not in (file, place)]
    last = max(others, key=lambda one: one.stat().st_mtime, default=None)
    kept = "there was none before" if last is None else f"the last good one is {last}"
    # torch's own writer says at which position it was, and not that the disk took no more.
    reason = getattr(error, "strerror", None) or "the disk is full, or cannot be written"
    return f"the checkpoint {place} could not be written ({reason}); {kept}. Make room, and go on with --resume RUN"
