"""Write a model as a Hugging Face folder, whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, distributed

from unlearun.errors import UnlearunError
from unlearun.models.loading import base_of, load_model, load_tokenizer, without_bars
from unlearun.models.lora import LoRA, adapter_names, adapter_weights, add_adapters, has_adapters, write_adapters
from unlearun.models.merging import merge, merged_weights, rebuilt
from unlearun.models.plain_file import read_plain
from unlearun.models.sharding import gathered, is_sharded

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# What the base method writes into a checkpoint beside Lightning's own keys, all of it plain values.
CHECKPOINT_KEY = "unlearun"


def save_folder(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    folder: str | Path,
    weights: dict[str, Tensor] | None = None,
) -> Path:
    """Save a model and its tokenizer.

    Args:
        model: A causal LM of transformers; of one with adapters they alone are written.
        tokenizer: Its tokenizer, if there is one.
        folder: Where to; must not hold a model already.
        weights: What is written, where the model itself has but a share of it.

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
                if has_adapters(model):
                    write_adapters(model, inner, weights)
                else:
                    model.save_pretrained(inner, state_dict=weights)
            if tokenizer is not None:
                tokenizer.save_pretrained(inner)
            if target.exists():
                target.rmdir()
            os.replace(inner, target)
    except OSError as error:
        raise UnlearunError(f"cannot write the model to {target}: {error.strerror or error}") from error
    return target


def save_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: str | Path, adapter: bool = False
) -> Path:
    """Save a model, with or without adapters, and its tokenizer.

    Args:
        model: A causal LM of transformers; one that is sharded must be saved by all processes, of which the first
            writes.
        tokenizer: Its tokenizer, if there is one.
        folder: Where to; must not hold a model already.
        adapter: Whether the adapters alone are saved, or merged into the whole model.

    Returns:
        The folder, which ``AutoModelForCausalLM.from_pretrained`` loads.

    Raises:
        UnlearunError: The folder has files in it or cannot be written, or there are no adapters to save alone.
    """
    adapted = has_adapters(model)
    if adapter and not adapted:
        raise UnlearunError("the model has no adapters that could be saved alone; set lora (--model.lora.r 16)")
    if is_sharded(model):
        return _save_shares(model, tokenizer, folder, merged=adapted and not adapter)
    return save_folder(merge(model) if adapted and not adapter else model, tokenizer, folder)


def _save_shares(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: str | Path, merged: bool
) -> Path:
    """Gather a sharded model in process 0, and write it there."""
    own = adapter_weights(model) if has_adapters(model) else model.state_dict()
    weights = gathered(merged_weights(model) if merged else own)
    if distributed.get_rank() == 0:
        save_folder(rebuilt(model, weights) if merged else model, tokenizer, folder, None if merged else weights)
    return Path(folder)


def export_checkpoint(
    checkpoint: str | Path, folder: str | Path, tokenizer: str | None = None, adapter: bool = False
) -> Path:
    """Turn a checkpoint of a run into a Hugging Face folder.

    Args:
        checkpoint: A ``.ckpt`` file.
        folder: Where to.
        tokenizer: Where the tokenizer comes from; None: from where the run had it.
        adapter: Whether the adapters alone are written.

    Returns:
        The folder.

    Raises:
        UnlearunError: The checkpoint does not exist, is none of ours or no result, or there is no tokenizer.
    """
    stored = read_checkpoint(checkpoint)
    facts: dict[str, Any] = stored[CHECKPOINT_KEY]
    if facts.get("unfinished"):
        raise UnlearunError(
            f"{checkpoint} was written before the run's last step: {facts['unfinished']}; take the last"
        )
    prefix = "policy.model."
    weights = {name[len(prefix) :]: w for name, w in stored["state_dict"].items() if name.startswith(prefix)}
    misfit = f"{checkpoint} does not fit a {facts['model_config']['model_type']} model; was it written by this version?"
    build = _plain_model if facts.get("lora") is None else _adapted_model
    model = build(facts, weights, misfit)
    return save_model(model, _find_tokenizer(Path(checkpoint), facts, tokenizer), folder, adapter)


def _plain_model(facts: dict[str, Any], weights: dict[str, Tensor], misfit: str) -> PreTrainedModel:
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    config_values = dict(facts["model_config"])
    try:
        config = AutoConfig.for_model(config_values.pop("model_type"), **config_values)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except ValueError as error:  # a model with code of its own
        raise UnlearunError(f"{misfit} If the model has code of its own, take RUN/model instead") from error
    try:  # assigned, not copied: the weights keep their dtype, whatever the config says
        missing, unexpected = model.load_state_dict(weights, strict=False, assign=True)
    except RuntimeError as error:  # a shape
        raise UnlearunError(misfit) from error
    model.tie_weights()
    # Read as any model's is, so that what is odd in it may be saved again.
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "generation_config.json").write_text(json.dumps(facts["generation_config"]), encoding="utf-8")
        model.generation_config = GenerationConfig.from_pretrained(folder)
    if unexpected or [name for name in missing if name not in model.all_tied_weights_keys]:
        raise UnlearunError(misfit)
    return model


def _adapted_model(facts: dict[str, Any], weights: dict[str, Tensor], misfit: str) -> PreTrainedModel:
    """Load the model that a run of adapters started from, and put those of the checkpoint beside it."""
    if facts["base"] is None:
        raise UnlearunError("the run trained adapters of a model that came as an object; save it from where it is")
    model = load_model(*facts["base"])
    where = {name.partition(".lora_")[0] for name in adapter_names(weights)}
    try:
        modules = [model.get_submodule(name) for name in where]
        add_adapters(model, LoRA(**{**facts["lora"], "target": None}), modules, base_of(facts["base"][0]))
        missing, unexpected = model.load_state_dict(weights, strict=False)
    except (AttributeError, RuntimeError) as error:  # a layer, or a shape
        raise UnlearunError(misfit) from error
    if unexpected or adapter_names(missing):
        raise UnlearunError(misfit)
    return model


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
    if path.is_dir() and path.suffix == ".ckpt":
        raise UnlearunError(
            f"{path} is a folder, in which each process has its share: a run can go on from it (--resume RUN), but it "
            "cannot be exported; take the run's model/, or let the first process write a file "
            "(save_distributed_checkpoint: false)"
        )
    stored = read_plain(path)
    parts = [stored.get(key) for key in (CHECKPOINT_KEY, "state_dict")] if isinstance(stored, dict) else [None]
    if not all(isinstance(part, dict) for part in parts):
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
