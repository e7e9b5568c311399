"""Checkpoints of shares, a folder that torch reads by unpickling, made to hold nothing that would run."""

from __future__ import annotations

import os
import pickle  # to refuse what it would import, before torch asks it
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unlearun.errors import UnlearunError

METADATA = ".metadata"
# What a description of shares is made of: where they are, their shapes and dtypes.
PARTS = {
    "collections": ("OrderedDict",),
    "pathlib": ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"),
    "torch.serialization": ("_get_layout",),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo",),
    "torch.distributed.checkpoint.metadata": (
        *("Metadata", "MetadataIndex", "StorageMeta", "TensorProperties", "TensorStorageMetadata"),
        *("BytesStorageMetadata", "ChunkStorageMetadata", "_MEM_FORMAT_ENCODING"),
    ),
}
FORCED = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


class _Described(pickle.Unpickler):
    """An unpickler that imports the parts of a description alone."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - a class, or a dtype
        """Return a part of a description.

        Args:
            module: Where the pickle says that it is.
            name: What it is called there.

        Raises:
            pickle.UnpicklingError: It is something else.
        """
        import torch

        of_torch = module == "torch" and (name == "Size" or isinstance(getattr(torch, name, None), torch.dtype))
        if not of_torch and name not in PARTS.get(module, ()):
            raise pickle.UnpicklingError(f"{module}.{name}")
        return super().find_class(module, name)


@contextmanager
def read_plainly(folder: Path) -> Iterator[None]:
    """Let torch read a checkpoint of shares, and unpickle in it nothing but weights and plain values.

    Args:
        folder: The checkpoint.

    Raises:
        UnlearunError: Its description is missing, broken, or would run something.
    """
    try:
        with (folder / METADATA).open("rb") as stream:
            _Described(stream).load()
    except OSError as error:
        raise UnlearunError(f"the folder {folder} is no checkpoint of shares: it holds no {METADATA}") from error
    except Exception as error:  # whatever a broken pickle leads to
        raise UnlearunError(
            f"{folder} cannot be read as a checkpoint of shares ({type(error).__name__}: {error!s:.80})"
        ) from error
    before = os.environ.get(FORCED)
    os.environ[FORCED] = "1"  # values beside the weights are unpickled one by one, deep inside
    try:
        yield
    finally:
        os.environ.pop(FORCED)
        if before is not None:
            os.environ[FORCED] = before
