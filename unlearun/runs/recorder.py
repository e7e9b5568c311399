"""What fills a run folder while Lightning runs."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from unlearun.data import UnlearningDataModule
from unlearun.files import write_whole
from unlearun.methods import UnlearningMethod
from unlearun.methods.strategies import hides_weights, whole_weights
from unlearun.models import is_sharded, lasting_name, save_folder, save_model
from unlearun.records import Evaluation, evaluation_file
from unlearun.report import run_summary
from unlearun.report.tensorboard import log_evaluation
from unlearun.runs.checkpoint import RunCheckpoint, find_checkpoint, remove
from unlearun.runs.guard import DivergenceGuard
from unlearun.runs.resume import is_finished, newest_checkpoint
from unlearun.runs.run_folder import RunFolder, RunLogger
from unlearun.runs.slow_precision import warn_of_slow_precision

log = logging.getLogger(__name__)

PUT_BY = ".model"  # of a run that has trained, and is yet to be evaluated to its end


class RunRecorder(Callback):
    """Writes the run folder: an evaluation at a time, with texts and figures for TensorBoard, the model at the end.

    Args:
        run_folder: Where to write; None writes nothing.
        write_config: Writes ``config.yaml`` into the folder given.
    """

    def __init__(self, run_folder: RunFolder | None, write_config: Callable[[Path], None] | None = None) -> None:
        self.run_folder = run_folder
        self.write_config = write_config
        self.first: Evaluation | None = None  # at step 0
        self.last: Evaluation | None = None
        self.folder: Path | None = None
        self._goes_on = False  # a run that has been, with all that it was given taken
        existing = None if run_folder is None else run_folder.existing
        self._there = set() if existing is None else set(existing.iterdir())

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Learn the run folder from rank 0."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        warn_of_slow_precision(trainer)
        if self.run_folder is None or self.folder is not None:
            return
        self.folder = self.run_folder.share(trainer)
        if isinstance(pl_module, UnlearningMethod):
            pl_module.run_folder = self.folder
        checkpoints = self.folder / "checkpoints"
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(checkpoints)
            elif isinstance(callback, RunCheckpoint):
                callback.folder = checkpoints
        if trainer.is_global_zero:
            for half in checkpoints.glob(".*"):  # of a run that was killed as it wrote them
                remove(half)
            if trainer.state.fn == "fit":
                shutil.rmtree(self.folder / PUT_BY, ignore_errors=True)
        if self.run_folder.existing is None:
            self._keep_config(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave no folder of a run that has found nothing: Lightning asks for it before the data are checked."""
        if self.run_folder is None or not trainer.is_global_zero:
            return
        self.run_folder.release()
        if self.run_folder.existing is not None:
            if not self._goes_on:
                _close(trainer)
                for file in set(self.run_folder.existing.glob("events.*")) - self._there:
                    file.unlink()
            return
        folder = self.folder or self.run_folder.taken  # a logger may have asked for it before this callback has
        if folder is None:
            return
        if not any((folder / name).exists() for name in ("eval", "checkpoints", "model", "predictions")):
            _close(trainer)
            shutil.rmtree(folder, ignore_errors=True)
            self.run_folder.discard()
        elif isinstance(exception, KeyboardInterrupt) and newest_checkpoint(folder) is not None:
            log.warning("what was reached is kept; to go on: unlearun fit --resume %s", folder)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over what the run that goes on, if any, has found so far: its step 0 is not measured again."""
        self.first = self.last = None
        if trainer.ckpt_path:
            earlier = Path(trainer.ckpt_path).parent.parent
            file = evaluation_file(earlier, 0)
            if file.is_file():
                self.first = Evaluation.read(file)
                if earlier != self.folder:
                    self._write(trainer, self.first)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, DivergenceGuard) and self.first is not None:
                callback.start = dict(self.first.summary)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the curves of a run that goes on begin where it does: only now is it known how far it had come."""
        if trainer.ckpt_path and trainer.is_global_zero and Path(trainer.ckpt_path).parent.parent == self.folder:
            for logger in trainer.loggers:
                if isinstance(logger, RunLogger):
                    logger.go_on(trainer.global_step)
                    file = evaluation_file(self.folder, trainer.global_step)
                    if file.is_file():
                        evaluation = Evaluation.read(file)
                        logger.log_metrics(evaluation.summary, step=evaluation.step)
                        log_evaluation([logger], evaluation)

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Write the config of a run that goes on: what could have been refused no longer is."""
        if not self._goes_on and self.run_folder is not None and self.run_folder.existing is not None:
            self._keep_config(trainer)
            self._goes_on = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the evaluation that has just ended."""
        if not isinstance(pl_module, UnlearningMethod) or pl_module.evaluation is None:
            return
        evaluation = pl_module.evaluation
        evaluation.fingerprint.update(_fingerprint(trainer, pl_module))
        if self.last is not None and self.last.step == evaluation.step and not pl_module.evaluated_fully:
            return  # no step was taken since, and less was measured
        self.last = evaluation
        if evaluation.step == 0 and trainer.state.fn == "fit":
            self.first = evaluation
        self._write(trainer, evaluation)
        if trainer.is_global_zero:
            log_evaluation(trainer.loggers, evaluation)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the evaluation that has just ended."""
        self.on_validation_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the model."""
        self.save(trainer, pl_module)

    def save(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the model as it is, unless that was done.

        A run that has a model counts as finished. So it is put by until `show_model` where the run could go on from a
        checkpoint of the same step, should it be ended before it is evaluated.

        Args:
            trainer: It has just run fit.
            pl_module: What it ran.
        """
        if not isinstance(pl_module, UnlearningMethod) or self.folder is None:
            return
        pl_module.finish()
        # As the first process sees it.
        if trainer.strategy.broadcast(is_finished(self.folder) or (self.folder / PUT_BY).is_dir()):
            return
        checkpoint = find_checkpoint(trainer)
        target = self.folder / (PUT_BY if checkpoint is not None and checkpoint.holds(trainer) else "model")
        if hides_weights(trainer.strategy):
            self._save_hidden(trainer, pl_module, target)
        elif trainer.is_global_zero or is_sharded(pl_module.policy):  # whose shares all have
            alone = pl_module.lora is not None and pl_module.lora.save == "adapter"
            save_model(pl_module.model, pl_module.tokenizer, target, alone)

    def show_model(self, trainer: Trainer) -> None:
        """Put the model where that of a finished run is.

        Args:
            trainer: It has just run fit, and evaluated what that has left.
        """
        if trainer.is_global_zero and self.folder is not None and (self.folder / PUT_BY).is_dir():
            (self.folder / PUT_BY).rename(self.folder / "model")

    def _save_hidden(self, trainer: Trainer, method: UnlearningMethod, folder: Path) -> None:
        weights = whole_weights(method)
        if weights is None:
            name = type(trainer.strategy).__name__
            log.warning("%s hides the weights, so %s is not written; export a checkpoint", name, folder)
        elif trainer.is_global_zero:
            save_folder(method.model, method.tokenizer, folder, weights)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write one file a set with every question, answer and generation."""
        data = _our_data(trainer)
        if self.folder is None or data is None or trainer.predict_loop.predictions is None:
            return
        predictions = trainer.predict_loop.predictions
        per_set = predictions if len(data.evaluated) > 1 else [predictions]
        suffix = "" if trainer.world_size == 1 else f"-rank{trainer.global_rank}"
        for name, batches in zip(data.evaluated, per_set, strict=True):
            texts = {example_id: text for batch in batches for example_id, text in batch.items()}
            lines = [
                {"example_id": e.example_id, "question": e.item.question, "answer": e.item.answer, "generation": text}
                for e in data.evaluated_examples(name)
                if (text := texts.get(e.example_id)) is not None
            ]
            file = self.folder / "predictions" / f"{name}{suffix}.jsonl"
            write_whole(file, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))

    def close(self) -> None:
        """Let other runs use the folder."""
        if self.run_folder is not None:
            self.run_folder.release()

    def summary(self) -> str:
        """Return the before/after table and some questions with their answers before and after."""
        return run_summary(self.first, self.last)

    def _keep_config(self, trainer: Trainer) -> None:
        if self.folder is not None and self.write_config is not None and trainer.is_global_zero:
            self.write_config(self.folder)

    def _write(self, trainer: Trainer, evaluation: Evaluation) -> None:
        if self.folder is not None and trainer.is_global_zero:
            evaluation.write(evaluation_file(self.folder, evaluation.step))


def _close(trainer: Trainer) -> None:
    """Close the loggers: one that is not would write its file again."""
    for logger in trainer.loggers:
        logger.finalize("failed")


def _our_data(trainer: Trainer) -> UnlearningDataModule | None:
    data = getattr(trainer, "datamodule", None)
    return data if isinstance(data, UnlearningDataModule) else None


def _fingerprint(trainer: Trainer, method: UnlearningMethod) -> dict[str, Any]:
    data = _our_data(trainer)
    facts: dict[str, Any] = {
        "method": type(method).__name__,
        "model": lasting_name(method.model_name or method.model.config.name_or_path or ""),
        "precision": str(trainer.precision),
        "dtype": method.dtype_name,
        "versions": {name: version(name) for name in ("unlearun", "torch", "transformers", "lightning")},
    }
    if trainer.ckpt_path:
        facts["checkpoint"] = str(trainer.ckpt_path)
    if data is not None and data.formatter is not None:
        facts.update(data.describe())
        for name, found in facts["sets"].items():
            rows = len(method.evaluation.examples.get(name, {})) if method.evaluation is not None else 0
            if rows != found["rows"] and method.measures(name):  # limit_val_batches; else nothing was asked of the set
                found.update(rows=rows, partial=True)
    if method.retain_reference is not None:
        facts["retain_reference"] = method.retain_reference
    return facts
