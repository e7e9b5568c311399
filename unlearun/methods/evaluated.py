"""What every method does in validate, test and predict: measure, and answer questions.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule

from unlearun.data import (
    GENERATED_TOGETHER,
    OWN,
    Batch,
    Example,
    UnlearningDataModule,
    expected_text,
    prompt_text,
)
from unlearun.errors import UnlearunError
from unlearun.metrics import Choice, EvaluationSuite, SetTraits
from unlearun.models import Policy, answers_of, gradient_norms, most, token_count
from unlearun.records import NEED_REFERENCE, Evaluation, check_fit, read_reference, role_of
from unlearun.shipped import is_shipped

log = logging.getLogger(__name__)

OWN_PASS = "mia_grad_norm"
SHOWN_ROWS = 5


class EvaluatedModule(LightningModule):
    """A LightningModule whose validation feeds all metrics of all sets from one forward.

    Attributes:
        policy: The model, once it is loaded.
        evaluation: What the last validation or test has found.
        evaluated_fully: Whether that was all of ``final_metrics``.
        retain_reference: The retain reference that it was compared with, if any.
    """

    policy: Policy

    def __init__(self) -> None:
        super().__init__()
        self.evaluation: Evaluation | None = None
        self.evaluated_fully = False
        self._suites: dict[bool, EvaluationSuite] = {}
        self._suite: EvaluationSuite | None = None
        self._rows: dict[str, dict[int, Example]] = {}
        self._trained_steps = 0
        self.retain_reference: str | None = None

    def setup(self, stage: str) -> None:
        """Check what is to be measured, and make Lightning's sanity check a whole validation: it is step 0.

        It is not repeated when a run is resumed; an explicit ``num_sanity_val_steps: 0`` switches it off.

        Args:
            stage: fit, validate, test or predict.

        Raises:
            UnlearunError: A metric does not exist or lacks its data, or the retain reference does not fit.
        """
        trainer: Any = self.trainer
        if stage == "fit" and trainer.num_sanity_val_steps > 0 and not trainer.fast_dev_run:
            trainer.num_sanity_val_steps = float("inf")
        data = getattr(trainer, "datamodule", None)
        self._suites, self._rows, self.evaluation = {}, {}, None
        if isinstance(data, UnlearningDataModule):
            names = list(data.evaluated)
            self._rows = {name: {row.example_id: row for row in data.evaluated_examples(name)} for name in names}
            if stage != "predict":
                self._suites = self._make_suites(data, stage)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember after how many steps the checkpoint was written; a run that goes on has its step 0 behind it."""
        self._trained_steps = int(checkpoint.get("global_step", 0))
        trainer: Any = self._trainer
        if trainer is not None and trainer.state.fn == "fit":
            trainer.num_sanity_val_steps = 0

    def on_train_end(self) -> None:
        """Remember after how many steps the model is, for evaluations by another Trainer."""
        self._trained_steps = self.trainer.global_step

    # ---- validate and test ----------------------------------------------------------------------------------

    def on_validation_start(self) -> None:
        """See `check_positions`."""
        self.check_positions()

    def on_test_start(self) -> None:
        """See `check_positions`."""
        self.check_positions()

    def on_predict_start(self) -> None:
        """See `check_tokens`."""
        self.check_tokens()

    def on_validation_epoch_start(self) -> None:
        """Choose the metrics: the cheap ones during a fit, all of them at its start and end."""
        self._start_evaluation(self.trainer.val_dataloaders)

    def on_test_epoch_start(self) -> None:
        """Choose the metrics: all of them."""
        self._start_evaluation(self.trainer.test_dataloaders)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Feed one batch to all metrics of its set.

        Args:
            batch: Rows of one set.
            batch_idx: Not used.
            dataloader_idx: Which set.
        """
        suite = self._suite
        if suite is None:
            raise UnlearunError("validation_step runs inside the Trainer's validation only")
        name = suite.sets[dataloader_idx]
        read = suite.needed(name, batch).split(self._questions_per_forward(len(batch)))
        for turn in range(most(len(read), self.policy) if suite.needs_stats(name) else 0):
            rows = read[min(turn, len(read) - 1)]
            stats = self.policy(rows, "stats")
            if turn < len(read):  # else it was run for the other processes
                suite.update(name, stats, rows)
        if self._rows and (suite.needs_texts(name) or self._is_complete()):
            self._update_texts(suite, name, batch)
        if suite.needs_gradients(name) and batch.example_id is not None:
            own = batch if batch.kind is None else batch.select(batch.kind == OWN)
            answered = own.mask.any(-1)
            own = own.select(answered) if answered.any() else own
            norms = gradient_norms(self.policy, own)
            if answered.any() and own.example_id is not None:
                suite.update_gradients(name, norms, own.example_id)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """See `validation_step`."""
        self.validation_step(batch, batch_idx, dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        """Compute all metrics, keep them in ``evaluation`` and log them."""
        if self._suite is None:
            return
        # A Trainer that has not trained counts no steps, so those of the model are kept.
        fitting = self.trainer.state.fn == "fit"
        step = self.trainer.global_step if fitting else self.trainer.global_step or self._trained_steps
        self.evaluated_fully = self._is_complete()
        self.evaluation = self._suite.compute(step, intervals=self.evaluated_fully)
        found = self.evaluation.summary
        if not fitting:  # so that Lightning returns it, and logs it at our step
            self.log_dict({**found, "step": float(step)}, batch_size=1, sync_dist=True)
            return
        # Straight to the loggers: Lightning keeps nothing of a sanity check, and counts steps of an epoch from 0.
        for logger in self.trainer.loggers:
            logger.log_metrics(found, step=step)
        if not self.trainer.sanity_checking:  # for callbacks that watch a metric
            self.log_dict(found, batch_size=1, sync_dist=True, logger=False)

    def on_test_epoch_end(self) -> None:
        """See `on_validation_epoch_end`."""
        self.on_validation_epoch_end()

    # ---- predict --------------------------------------------------------------------------------------------

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
        name = list(data.evaluated)[dataloader_idx]
        rows = self._questions(name, batch)
        return dict(zip([row.example_id for row in rows], self.answer(name, rows), strict=True))

    def answer(self, name: str, examples: Sequence[Example]) -> list[str]:
        """Answer the questions of some rows greedily, as the datamodule of the Trainer formats them.

        Args:
            name: The set.
            examples: Rows of it.

        Returns:
            One text a row.
        """
        return self.answers(name, examples)

    def answers(self, name: str, examples: Sequence[Example], temperature: float = 0.0) -> list[str]:
        """See `answer`; greedily, or drawn.

        Args:
            name: The set.
            examples: Rows of it.
            temperature: 0 is greedy; else what scores are divided by before tokens are drawn.
        """
        data = self._data()
        at_once, most_tokens = GENERATED_TOGETHER * data.questions_per_batch, data.max_new_tokens(name)
        return answers_of(self.policy, data.formatter_of(name), examples, most_tokens, at_once, temperature)

    # ---- inside ---------------------------------------------------------------------------------------------

    def _make_suites(self, data: UnlearningDataModule, stage: str) -> dict[bool, EvaluationSuite]:
        sets = {name: _traits(rows.values()) for name, rows in self._rows.items()}
        reference = self._find_reference(data)
        lists: dict[bool, Sequence[Choice] | None] = {True: data.final_metrics}
        if stage == "fit":
            lists[False] = data.validation_metrics
            if any(chosen is not None and OWN_PASS in chosen for chosen in lists.values()):
                log.info("%s is a pass of its own; it is left to validate and test", OWN_PASS)
            lists = {k: None if c is None else [one for one in c if one != OWN_PASS] for k, c in lists.items()}
        return {complete: EvaluationSuite(sets, chosen, reference) for complete, chosen in lists.items()}

    def _find_reference(self, data: UnlearningDataModule) -> Evaluation | None:
        where, self.retain_reference = data.retain_reference, None
        if where is None:
            return None
        reference = read_reference(where)
        try:
            check_fit(data.unmeasured(), reference, where)
        except UnlearunError:
            asked = {str(choice) for choice in [*(data.final_metrics or []), *data.validation_metrics]}
            if not is_shipped(where) or asked & set(NEED_REFERENCE):
                raise
            # A shipped config brings it along for its own data; with the user's it is nobody's mistake.
            log.info("%s is of other data or another model; what is relative to a retain model is left out", where)
            return None
        self.retain_reference = where
        return reference

    def check_positions(self) -> None:
        """Check that the model has a position for every token, and an embedding.

        Raises:
            UnlearunError: Rows are longer than that, or the tokenizer is of another model.
        """
        data, config = getattr(self.trainer, "datamodule", None), self.policy.model.config.get_text_config()
        positions = getattr(config, "max_position_embeddings", None)
        if isinstance(data, UnlearningDataModule) and positions is not None and data.longest_row > positions:
            raise UnlearunError(
                f"the longest row has {data.longest_row} tokens, but the model has {positions} positions; "
                f"set max_length to {positions} or less"
            )
        self.check_tokens()

    def check_tokens(self) -> None:
        """Check that the model has an embedding for every token.

        Raises:
            UnlearunError: The tokenizer is of another model.
        """
        data, tokens = getattr(self.trainer, "datamodule", None), token_count(self.policy.model)
        if isinstance(data, UnlearningDataModule) and data.formatter is not None:
            tokenizer = data.formatter.tokenizer  # it may know more tokens than the model, as long as no row has one
            if len(tokenizer) > tokens and data.highest_token >= tokens:
                raise UnlearunError(
                    f"the tokenizer made token {data.highest_token}, but the model has tokens 0 to {tokens - 1}: they "
                    "do not belong together; name the model's own with --model.tokenizer"
                )

    def _start_evaluation(self, loaders: Any) -> None:  # noqa: ANN401 - what the datamodule returned
        names = list(loaders) if isinstance(loaders, dict) else [f"set{i}" for i in range(_count(loaders))]
        if names != list(self._rows):  # loaders of the user's own: what their rows have is not known
            self._rows = {}
            self._suites = {True: EvaluationSuite({name: SetTraits(paraphrase=True, wrong=True) for name in names})}
        self._suite = self._suites.get(self._is_complete(), self._suites[True]).to(self.device)
        self._suite.reset()

    def measures(self, name: str) -> bool:
        """Say whether the last evaluation measured anything on a set; of others a few answers may be kept to be read.

        Args:
            name: The set.
        """
        return self._suite is not None and bool(self._suite.of(name))

    def _is_complete(self) -> bool:
        """Say whether this evaluation is at the start or end of a fit, or outside one."""
        trainer: Any = self.trainer
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return True
        at_the_last_batch = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        last_epoch = trainer.max_epochs is not None and 0 < trainer.max_epochs <= trainer.current_epoch + 1
        return bool(0 < trainer.max_steps <= trainer.global_step or (last_epoch and at_the_last_batch))

    def _questions_per_forward(self, rows: int) -> int:
        return self._data().questions_per_batch if self._rows else rows

    def _update_texts(self, suite: EvaluationSuite, name: str, batch: Batch) -> None:
        data = self._data()
        rows = self._questions(name, batch)
        if not suite.needs_texts(name):  # then a few are answered for people to read
            shown = list(self._rows[name])[: SHOWN_ROWS if role_of(name) in ("forget", "retain") else 0]
            rows = [row for row in rows if row.example_id in shown]
        formatter = data.formatter_of(name)
        suite.update_texts(
            name,
            [row.example_id for row in rows],
            self.answer(name, rows),
            [expected_text(formatter, row, data.max_new_tokens(name)) for row in rows],
            [prompt_text(formatter, row) for row in rows],
            [row.item.short_answer for row in rows],
        )

    def _questions(self, name: str, batch: Batch) -> list[Example]:
        """Return the rows of a batch, each once whatever the number of its answers."""
        known = self._rows[name]
        ids = [] if batch.example_id is None else dict.fromkeys(batch.example_id.tolist())
        return [known[example_id] for example_id in ids if example_id in known]

    def _data(self) -> UnlearningDataModule:
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, UnlearningDataModule):
            raise UnlearunError("generating answers needs an UnlearningDataModule; give it to the Trainer")
        return data


def _traits(rows: Any) -> SetTraits:  # noqa: ANN401 - a view of examples
    items = [row.item for row in rows]
    return SetTraits(
        paraphrase=any(item.paraphrase is not None for item in items),
        wrong=any(item.perturbed for item in items),
        short=any(item.short_answer is not None for item in items),
    )


def _count(loaders: Any) -> int:  # noqa: ANN401 - a loader or a list of them
    return len(loaders) if isinstance(loaders, (list, tuple)) else 1
