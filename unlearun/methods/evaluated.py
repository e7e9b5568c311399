"""What every method does in validate, test and predict: measure, and answer questions.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule

from unlearun.data import Batch, Example, UnlearningDataModule
from unlearun.errors import UnlearunError
from unlearun.metrics import Evaluation, EvaluationSuite
from unlearun.models import Policy, greedy_answers


class EvaluatedModule(LightningModule):
    """A LightningModule whose validation feeds all metrics of all sets from one forward.

    Attributes:
        policy: The model, once it is loaded.
        evaluation: What the last validation or test has found.
    """

    policy: Policy

    def __init__(self) -> None:
        super().__init__()
        self.evaluation: Evaluation | None = None
        self._suite: EvaluationSuite | None = None
        self._loaded_step = 0

    def setup(self, stage: str) -> None:
        """Make Lightning's sanity check a whole validation: it is step 0, and not repeated when a run is resumed.

        An explicit ``num_sanity_val_steps: 0`` switches it off.

        Args:
            stage: fit, validate, test or predict.
        """
        trainer: Any = self.trainer
        if stage == "fit" and trainer.num_sanity_val_steps > 0 and not trainer.fast_dev_run:
            trainer.num_sanity_val_steps = float("inf")

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember after how many steps the checkpoint was written; a run that goes on has its step 0 behind it."""
        self._loaded_step = int(checkpoint.get("global_step", 0))
        trainer: Any = self._trainer
        if trainer is not None and trainer.state.fn == "fit":
            trainer.num_sanity_val_steps = 0

    def on_validation_epoch_start(self) -> None:
        """Make metrics for the sets that are evaluated."""
        self._start_evaluation(self.trainer.val_dataloaders)

    def on_test_epoch_start(self) -> None:
        """Make metrics for the sets that are evaluated."""
        self._start_evaluation(self.trainer.test_dataloaders)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Feed one batch to all metrics of its set.

        Args:
            batch: Rows of one set.
            batch_idx: Not used.
            dataloader_idx: Which set.
        """
        if self._suite is None:
            raise UnlearunError("validation_step runs inside the Trainer's validation only")
        self._suite.update(self._suite.sets[dataloader_idx], self.policy(batch, "stats"), batch)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """See `validation_step`."""
        self.validation_step(batch, batch_idx, dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        """Compute all metrics, keep them in ``evaluation`` and log them."""
        if self._suite is None:
            return
        # Outside fit Lightning restores no step counter, so a checkpoint's own is kept.
        step = 0 if self.trainer.sanity_checking else self.trainer.global_step or self._loaded_step
        self.evaluation = self._suite.compute(step)
        # Straight to the loggers: Lightning keeps nothing of a sanity check, and counts steps of an epoch from 0.
        for logger in self.trainer.loggers:
            logger.log_metrics(self.evaluation.summary, step=step)
        if not self.trainer.sanity_checking:  # for callbacks that watch a metric
            self.log_dict(self.evaluation.summary, batch_size=1, sync_dist=True, logger=False)

    def on_test_epoch_end(self) -> None:
        """See `on_validation_epoch_end`."""
        self.on_validation_epoch_end()

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[int, str]:
        """Answer the questions of one batch.

        Args:
            batch: Rows of one set.
            batch_idx: Not used.
            dataloader_idx: Which set.

        Returns:
            The generated answer for each example id.
        """
        data = self._data()
        ids = [] if batch.example_id is None else batch.example_id.tolist()
        name = list(data.evaluated)[dataloader_idx]
        rows = {example.example_id: example for example in data.evaluated_examples(name)}
        known = [rows[example_id] for example_id in ids if example_id in rows]
        return dict(zip([row.example_id for row in known], self.answer(known), strict=True))

    def answer(self, examples: Sequence[Example]) -> list[str]:
        """Answer the questions of some rows greedily, as the datamodule of the Trainer formats them.

        Args:
            examples: Rows of its sets.

        Returns:
            One text a row.
        """
        data = self._data()
        if data.formatter is None or not examples:
            return []
        return greedy_answers(self.policy, data.formatter, examples, data.max_new_tokens)

    def _data(self) -> UnlearningDataModule:
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, UnlearningDataModule):
            raise UnlearunError("generating answers needs an UnlearningDataModule; give it to the Trainer")
        return data

    def _start_evaluation(self, loaders: Any) -> None:  # noqa: ANN401 - what the datamodule returned
        names = list(loaders) if isinstance(loaders, dict) else [f"set{i}" for i in range(_count(loaders))]
        if self._suite is None or list(self._suite.sets) != names:
            self._suite = EvaluationSuite(names)
        self._suite.to(self.device)


def _count(loaders: Any) -> int:  # noqa: ANN401 - a loader or a list of them
    return len(loaders) if isinstance(loaders, (list, tuple)) else 1
