"""Write a model as a Hugging Face folder, whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from unlearun.errors import UnlearunError
from unlearun.models.loading import load_tokenizer, without_bars

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# What the base method writes into a checkpoint beside Lightning's own keys, all of it plain values.
CHECKPOINT_KEY = "unlearun"


def save_folder(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: str | Path) -> Path:
    """Save a model and its tokenizer.

    Args:
        model: A causal LM of transformers.
        tokenizer: Its tokenizer, if there is one.
        folder: Where to; must not hold a model already.

    Returns:
        The folder, which ``AutoModelForCausalLM.from_pretrained`` loads.

    Raises:
        UnlearunError: The folder has files in it, or cannot be written.
    """
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UnlearunError(f"{target} exists already and is not empty; name another folder")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Beside the target, so that the rename stays on one disk.
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
            inner = Path(scratch) / "model"
            with without_bars():
                model.save_pretrained(inner)
            if tokenizer is not None:
                tokenizer.save_pretrained(inner)
            if target.exists():
                target.rmdir()
            os.replace(inner, target)
    except OSError as error:
        raise UnlearunError(f"cannot write the model to {target}: {error.strerror or error}") from error
    return target


def export_checkpoint(checkpoint: str | Path, folder: str | Path, tokenizer: str | None = None) -> Path:
    """Turn a checkpoint of a run into a Hugging Face folder.

    Args:
        checkpoint: A ``.ckpt`` file.
        folder: Where to.
        tokenizer: Where the tokenizer comes from; None: from where the run had it.

    Returns:
        The folder.

    Raises:
        UnlearunError: The checkpoint does not exist or is none of ours, or the tokenizer cannot be found.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    stored = read_checkpoint(checkpoint)
    facts: dict[str, Any] = stored[CHECKPOINT_KEY]
    config_values = dict(facts["model_config"])
    config = AutoConfig.for_model(config_values.pop("model_type"), **config_values)
    prefix = "policy.model."
    weights = {name[len(prefix) :]: w for name, w in stored["state_dict"].items() if name.startswith(prefix)}
    model = AutoModelForCausalLM.from_config(config)
    misfit = f"{checkpoint} does not fit a {config.model_type} model; was it written by this version?"
    try:  # assigned, not copied: the weights keep their dtype, whatever the config says
        missing, unexpected = model.load_state_dict(weights, strict=False, assign=True)
    except RuntimeError as error:  # a shape
        raise UnlearunError(misfit) from error
    model.tie_weights()
    model.generation_config = GenerationConfig.from_dict(facts["generation_config"])
    if unexpected or [name for name in missing if name not in model.all_tied_weights_keys]:
        raise UnlearunError(misfit)
    return save_folder(model, _find_tokenizer(Path(checkpoint), facts, tokenizer), folder)


def read_checkpoint(checkpoint: str | Path) -> dict[str, Any]:
    """Read a checkpoint of a run, weights and plain values only.

    Args:
        checkpoint: A ``.ckpt`` file.

    Returns:
        What Lightning and the method wrote.

    Raises:
        UnlearunError: It does not exist, cannot be read, or was not written by unlearun.
    """
    path = Path(checkpoint)
    if not path.is_file():
        raise UnlearunError(f"there is no checkpoint {path}; look into RUN/checkpoints")
    try:
        stored: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip and runtime errors for what is no checkpoint
        raise UnlearunError(f"{path} cannot be read as a checkpoint ({type(error).__name__})") from error
    if not isinstance(stored, dict) or CHECKPOINT_KEY not in stored:
        raise UnlearunError(f"{path} is no checkpoint of an unlearun run")
    return stored


def _find_tokenizer(checkpoint: Path, facts: dict[str, Any], tokenizer: str | None) -> PreTrainedTokenizerBase:
    if tokenizer is not None:
        return load_tokenizer(tokenizer)
    saved = checkpoint.parent.parent / "model"
    if (saved / "tokenizer_config.json").is_file():
        return load_tokenizer(str(saved))
    if facts["tokenizer"] is not None:
        return load_tokenizer(facts["tokenizer"])
    raise UnlearunError(f"{checkpoint} does not say where its tokenizer comes from; add --tokenizer FOLDER_OR_ID")
