"""Files of torch.save, read as weights and plain values alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from unlearun.errors import UnlearunError, shown
from unlearun.files import exists


def read_plain(path: Path) -> Any:  # noqa: ANN401 - whatever was saved
    """Read a checkpoint, and run nothing that it names.

    Args:
        path: A file that torch.save wrote.

    Returns:
        What it holds; tensors are read from the file when they are asked for.

    Raises:
        UnlearunError: There is none, it is broken, or it holds something else than tensors and plain values.
    """
    if not exists(path):
        raise UnlearunError(f"there is no checkpoint {path}; look into RUN/checkpoints")
    refused = f"{path} cannot be read as a checkpoint of weights and plain values"
    try:
        # Asked first: torch takes minutes to put a long name into its refusal.
        code = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
        stored = None if code else torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises pickle, zip and runtime errors for what is no checkpoint
        raise UnlearunError(f"{refused} ({type(error).__name__})") from error
    if code:
        raise UnlearunError(f"{refused}: it holds {shown(sorted(code)[0])}, which is code")
    return stored
