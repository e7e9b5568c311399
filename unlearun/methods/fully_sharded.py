"""FSDP2 as a strategy of the Trainer: ``--trainer.strategy fsdp2``."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from torch.distributed.constants import default_pg_timeout

from unlearun.methods.base import UnlearningMethod
from unlearun.models import read_plain, read_plainly


class FullySharded(ModelParallelStrategy):
    """Lightning's ModelParallelStrategy over all processes of a run: each keeps a share of every weight.

    Args:
        save_distributed_checkpoint: Whether each process writes its share into a folder, without anything coming
            together anywhere. Else process 0 gathers all in the CPU's memory and writes one file, which ``unlearun
            export`` reads and which goes on with any number of processes.
        process_group_backend: What the processes speak; nccl on GPUs and gloo on CPUs unless named.
        timeout: How long one waits for another.
    """

    def __init__(
        self,
        save_distributed_checkpoint: bool = False,
        process_group_backend: str | None = None,
        timeout: timedelta | None = default_pg_timeout,
    ) -> None:
        super().__init__(
            tensor_parallel_size=1,
            save_distributed_checkpoint=save_distributed_checkpoint,
            process_group_backend=process_group_backend,
            timeout=timeout,
        )

    def setup_environment(self) -> None:
        """Spread over as many processes as there are; Lightning's own choice is one share a node."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Load shares of a checkpoint; the weights are put in place at once, so what they are is checked before.

        Args:
            checkpoint_path: A file or folder.
            weights_only: Not asked: a checkpoint of ours is plain values.

        Returns:
            The rest of it.

        Raises:
            UnlearunError: It would run something when it is read.
        """
        path, module = Path(self.broadcast(checkpoint_path)), self.lightning_module
        if path.is_file() and isinstance(module, UnlearningMethod):
            module.check_adapters(read_plain(path)["state_dict"])
        with read_plainly(path) if path.is_dir() else nullcontext():
            return super().load_checkpoint(path, weights_only=True)


StrategyRegistry.register("fsdp2", FullySharded, description="FSDP2: each process keeps a share of every weight")
