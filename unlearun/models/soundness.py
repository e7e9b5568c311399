"""What is wrong with the files of a model: looked for before transformers reads them and after, and put in a line."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from unlearun.errors import UnlearunError
from unlearun.hub import SIGN_IN, is_gated

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

GGUF_MAGIC = b"GGUF"
# What every way of saving a model calls its weights, where they are pickles.
PICKLES = ("pytorch_model*.bin", "adapter_model*.bin", "*.pt", "*.pth")
TOKENIZERS = ("tokenizer*", "vocab*", "merges*", "*.model", "*.tiktoken")
MORE_PLACES = {"causal language model": ", a GGUF file, or 'pocket'"}


def check_files(model: str, where: str, how: Mapping[str, str], weights: str = "*.safetensors*") -> None:
    """Check, before anything reads them, that a model's files are of a kind that can be read safely.

    Args:
        model: What the user called it.
        where: Its folder, or a hub id, of which nothing is known yet.
        how: The name of its GGUF file, if it is one.
        weights: What its files of weights should be called.

    Raises:
        UnlearunError: They are not.
    """
    folder = Path(where)
    if how:
        if find_spec("gguf") is None:
            raise UnlearunError("reading GGUF files needs the package gguf; pip install 'unlearun[gguf]'")
        _check_gguf(folder / how["gguf_file"])
    elif folder.is_dir() and not any(folder.glob(weights)):
        pickles = sorted(file.name for pattern in PICKLES for file in folder.glob(pattern))
        if pickles:
            raise UnlearunError(
                f"the weights of {model} are a pickle ({pickles[0]}), which may run any code when it is read; if you "
                "trust it, convert it once with transformers: AutoModelForCausalLM.from_pretrained(OLD)"
                ".save_pretrained(NEW), and name the new folder"
            )


def check_tokenizer(model: str, folder: Path) -> None:
    """Check that a folder has a tokenizer, of which transformers would say that its backend cannot be instantiated.

    Args:
        model: What the user called it.
        folder: Where it is.

    Raises:
        UnlearunError: It has none.
    """
    if folder.is_dir() and not any(file for pattern in TOKENIZERS for file in folder.glob(pattern)):
        raise UnlearunError(f"the folder {model} holds no tokenizer; name one that does with --model.tokenizer")


def _check_gguf(file: Path) -> None:
    try:
        with file.open("rb") as stream:
            found = stream.read(len(GGUF_MAGIC))
    except OSError as error:
        raise UnlearunError(f"{file} cannot be read: {error.strerror}") from error
    if found != GGUF_MAGIC:
        what = f"begins with {found!r}, not with {GGUF_MAGIC!r}" if found else "is empty"
        raise UnlearunError(f"{file} {what}: it is encrypted, damaged or no GGUF file; download it again")


def check_complete(model: str, loaded: PreTrainedModel, info: Mapping[str, Any]) -> None:
    """Check that all weights came out of the files: those that did not are random numbers.

    Args:
        model: What the user called it.
        loaded: What transformers made.
        info: What it says of the weights.

    Raises:
        UnlearunError: Some are missing, or of another shape than the config says.
    """
    trained = {name for name, _ in loaded.named_parameters()}
    missing = sorted(trained.intersection(info["missing_keys"]))
    misfit = sorted(info["mismatched_keys"])
    if misfit:
        name, found, wanted = misfit[0]
        raise UnlearunError(
            f"{len(misfit)} weights of {model} have another shape than its config.json says (first: {name} is "
            f"{list(found)}, expected {list(wanted)}); take config and weights of one model"
        )
    if missing:
        raise UnlearunError(
            f"{len(missing)} of {len(trained)} weights of {model} are not in its files (first: {missing[0]}): it is "
            f"not whole, or no {type(loaded).__name__}; copy or download it again"
        )
    if unexpected := sorted(info["unexpected_keys"]):
        message = "%s: %d weights are left out, for the model has none of that name (first: %s)"
        log.info(message, model, len(unexpected), unexpected[0])


@torch.no_grad()
def check_causal(model: str, loaded: PreTrainedModel) -> None:
    """Check that no token is predicted from those behind it, as encoders such as BERT do.

    Args:
        model: What the user called it.
        loaded: The model, in eval mode.

    Raises:
        UnlearunError: It is an encoder.
    """
    if getattr(loaded.config, "is_decoder", True):  # GPT-NeoX is causal, and its config says false all the same
        return
    ids = torch.tensor([[1, 2, 3], [1, 2, 4]], device=loaded.device)
    one, other = loaded(input_ids=ids).logits[:, :2].float()
    if not torch.allclose(one, other, rtol=1e-3, atol=1e-3 * float(one.abs().max())):
        raise UnlearunError(
            f"{model} is a {type(loaded).__name__} that sees the tokens behind the one it predicts (is_decoder is "
            "false in its config.json), so it is no causal language model"
        )


def token_count(model: PreTrainedModel) -> int:
    """Return how many tokens a model has embeddings for, however they are sharded.

    Args:
        model: A causal LM of transformers.
    """
    embeddings = model.get_input_embeddings()
    return int(getattr(embeddings, "num_embeddings", model.config.get_text_config().vocab_size))


def check_comparable(model: PreTrainedModel, reference: PreTrainedModel, reads: Collection[str]) -> None:
    """Check that a loss can compare a model with another one.

    Args:
        model: The one that is trained.
        reference: The other.
        reads: What the loss reads of it: logprobs, token_logprobs, logits, hidden or weights.

    Raises:
        UnlearunError: They have other tokens, or are of another shape where that matters.
    """
    problems = []
    ours, theirs = token_count(model), token_count(reference)
    if theirs < ours or ("logits" in reads and theirs != ours):
        problems.append(f"it has {theirs} tokens, the model {ours}")
    own, other = model.config.get_text_config(), reference.config.get_text_config()
    for size in ("num_hidden_layers", "hidden_size") if {"hidden", "weights"} & set(reads) else ():
        if getattr(own, size) != getattr(other, size):
            problems.append(f"its {size} is {getattr(other, size)}, the model's {getattr(own, size)}")
    if problems:
        raise UnlearunError(
            f"the reference {reference.config.name_or_path} is another kind of model: {'; '.join(problems)}. Name one "
            "of the same kind, or leave out reference: then it is the model at the start"
        )


@contextmanager
def explained(model: str, part: str, kind: str = "causal language model") -> Iterator[None]:
    """Turn whatever transformers raises into one sentence.

    Args:
        model: What is loaded.
        part: The model, the tokenizer or the like.
        kind: What is expected.
    """
    try:
        yield
    except (KeyboardInterrupt, MemoryError):
        raise
    except UnlearunError:
        raise
    except Exception as error:  # transformers raises many kinds: network, missing files, unknown architectures
        reason = (str(error).strip() or "no message").splitlines()[0]
        if found := re.match(r"Unrecognized configuration class <class '[\w.]*\.(\w+?)(?:Config)?'>", reason):
            reason = f"{found[1]} is no {kind}"
        elif "couldn't connect to" in reason:
            reason = "it is no folder here and not in the hub's cache, and the hub cannot be reached"
        else:
            reason = f"{type(error).__name__}: {reason}"
        remedy = _remedy(error, model, part, kind)
        raise UnlearunError(f"the {part} of {model!r} could not be loaded ({reason}); {remedy}") from error


def _remedy(error: Exception, model: str, part: str, kind: str) -> str:
    if "trust_remote_code" in str(error):
        return (
            "it brings code of its own, which is not run unless you say so: read it, and if you trust it, set "
            "--model.trust_remote_code true"
        )
    if is_gated(error):
        return SIGN_IN
    if type(error).__name__ == "SafetensorError":
        return "its weights are damaged or not whole: copy or download them again"
    if model.lower().endswith(".gguf"):
        return "the file is damaged, not whole, or of a kind that transformers does not read: download it again"
    another = "; another tokenizer is named with --model.tokenizer" if part == "tokenizer" else ""
    return f"expected the hub id of a {kind}, a folder that save_pretrained wrote{MORE_PLACES.get(kind, '')}{another}"
