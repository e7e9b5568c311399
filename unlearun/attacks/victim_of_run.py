"""The victim that a run folder holds: its model, its data, what was found before and after."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unlearun import runs
from unlearun.attacks.found import found_at_the_end, found_at_the_start
from unlearun.attacks.victim import Victim
from unlearun.data import UnlearningDataModule
from unlearun.errors import UnlearunError
from unlearun.records import Evaluation, evaluation_files
from unlearun.shipped import is_shipped

log = logging.getLogger(__name__)

# A whole model, or an adapter.
WEIGHTS = ("*.safetensors", "*.gguf")


def read_victim(run: Path, precision: str | None = None) -> Victim:
    """Take a run's model, data and evaluations.

    Args:
        run: A run folder.
        precision: The Trainer's; None for the run's own.

    Raises:
        UnlearunError: It is none, has not ended, or its data were Python objects.
    """
    config = _config_of(run)
    data, method = config.get("data"), config.get("model")
    method = method if isinstance(method, Mapping) else {}
    if not isinstance(data, Mapping) or "<object" in str(data):
        raise UnlearunError(f"{run}: its config.yaml names no files of data, so they cannot be read again")
    if unknown := [key for key in data if key not in inspect.signature(UnlearningDataModule).parameters]:
        raise UnlearunError(
            f"{run}: its config.yaml has data.{unknown[0]}, which this version of unlearun does not know"
        )
    reference = data.get("retain_reference")
    if isinstance(reference, str) and not is_shipped(reference) and not Path(reference).exists():
        log.warning("%s: its retain_reference %s is not there any more, and is left out", run, reference)
        data = {**data, "retain_reference": None}
    settings = method.get("init_args")
    settings = settings if isinstance(settings, Mapping) else {}
    trainer = config.get("trainer")
    trainer = trainer if isinstance(trainer, Mapping) else {}
    seed = config.get("seed_everything")
    try:
        return Victim(
            str(run / "model"),
            data,
            found_at_the_start(run) or _end_of(settings.get("model")),
            found_at_the_end(run) if max(evaluation_files(run), default=0) > 0 else None,
            precision or trainer.get("precision") or "32-true",
            settings.get("dtype", "float32"),
            bool(settings.get("trust_remote_code", False)),
            seed if isinstance(seed, int) else 0,
            str(trainer.get("accelerator") or "auto"),
        )
    except UnlearunError as error:
        raise UnlearunError(f"{run}: {error} (files of its config.yaml are looked for from {Path.cwd()})") from error


def has_weights(folder: Path) -> bool:
    """Say whether a Hugging Face folder holds weights, of a whole model or of an adapter.

    Args:
        folder: The folder.
    """
    return any(file for pattern in WEIGHTS for file in folder.glob(pattern))


def _config_of(run: Path) -> Mapping[str, Any]:
    """Return what a run was made with, if it has ended and left a model."""
    expected = "attack takes the folder of a run that has ended, such as outputs/rmu/1"
    try:
        found = "" if run.is_dir() else "is no folder" if run.exists() else "does not exist"
    except OSError as error:  # too long a name
        raise UnlearunError(f"{str(run)!r:.80} cannot be read: {error.strerror}; {expected}") from error
    if found:
        raise UnlearunError(f"{run} {found}; {expected}")
    if not (run / "config.yaml").is_file():
        raise UnlearunError(f"{run} has no config.yaml; {expected}")
    config = runs.read_config(run)
    if config is None:
        raise UnlearunError(f"{run / 'config.yaml'} is broken, or no mapping; {expected}")
    if not has_weights(run / "model"):
        raise UnlearunError(
            f"{run} has no weights in model/; {expected}, or make one of a checkpoint: "
            f"unlearun export CHECKPOINT {run / 'model'}"
        )
    return config


def _end_of(model: Any) -> Evaluation | None:  # noqa: ANN401 - any value of a config
    """Return what was found at the end of the run that made a model, where the next began unmeasured."""
    if not isinstance(model, str) or not Path(model).is_dir():
        return None
    return found_at_the_end(Path(model).parent if Path(model).name == "model" else Path(model))
