"""A loader that can be left within an epoch and taken up again at the same batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from unlearun.data.batch import Batch
from unlearun.data.sampler import StepSampler
from unlearun.errors import UnlearunError


class ResumableLoader(DataLoader[Batch]):
    """A DataLoader whose place, which Lightning does not keep of a plain one, is in its state.

    A `StepSampler` says for each epoch what is drawn, so the place is a number, whatever the number of workers.

    Args:
        arguments: See DataLoader.
        settings: See DataLoader.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._place = {"epoch": -1, "batches": 0, "together": 0}
        self._resumed: dict[str, int] | None = None

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        # Only now, as the first batch is asked for: Lightning makes the iterator before it tells the epoch.
        left, self._resumed = self._resumed, None
        if isinstance(self.sampler, StepSampler):  # Lightning has another where it overfits the first batches
            epoch, together = self.sampler.epoch, self.sampler.batch_size * self.sampler.num_replicas
            self.sampler.start = 0
            if left is not None and left["epoch"] == epoch:
                if left["together"] != together:
                    raise UnlearunError(
                        f"the run was left within an epoch, with batches of {left['together']} rows over all "
                        f"processes, and would go on with {together}: use the batch_size and devices that it had"
                    )
                self.sampler.start = left["batches"]
            self._place = {"epoch": epoch, "batches": self.sampler.start, "together": together}
        for batch in super().__iter__():
            self._place["batches"] += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the epoch, how many of its batches were handed out, and their rows over all processes."""
        return dict(self._place)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on behind the last batch that was handed out, if the next epoch that is drawn is the same.

        Args:
            state: What `state_dict` gave.
        """
        self._resumed = dict(state)
