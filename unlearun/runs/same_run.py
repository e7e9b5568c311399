"""Whether what is to go on is the run that has been: of one method, from one model, with the optimizer it holds."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unlearun.errors import UnlearunError
from unlearun.methods import UnlearningMethod
from unlearun.models import lasting_name
from unlearun.runs.resume import read_config

log = logging.getLogger(__name__)

KINDS = (bool, int, float, str)


def check_method(folder: Path, method: UnlearningMethod) -> None:
    """Check, before anything is written there, that a run folder is of a method.

    Args:
        folder: Of the run that is to go on.
        method: What is to go on with it.

    Raises:
        UnlearunError: It is of another.
    """
    model = (read_config(folder) or {}).get("model")
    stored = str(model.get("class_path") if isinstance(model, Mapping) else "").rpartition(".")[2]
    if stored and stored.lower() != type(method).__name__.lower():
        raise UnlearunError(
            f"{folder} is a run of {stored}, which {type(method).__name__} cannot go on with; leave the method out to "
            "let it go on, or start a run of another from its weights (--model.model FOLDER, which unlearun export "
            "CKPT FOLDER makes of a checkpoint)"
        )


def check_start(folder: Path, method: UnlearningMethod) -> None:
    """Check, before anything is written there, that a run goes on from the model that it began with.

    The weights come out of the checkpoint, but what the loss compares with, and what adapters are beside, do not.

    Args:
        folder: Of the run that is to go on.
        method: What is to go on with it; a model that is, or was, an object has no name to tell it by.

    Raises:
        UnlearunError: It is another model.
    """
    model = (read_config(folder) or {}).get("model")
    settings = model.get("init_args") if isinstance(model, Mapping) else None
    began = settings.get("model") if isinstance(settings, Mapping) else None
    here = method.model_name
    if not isinstance(began, str) or here is None or began.startswith("<object") or method.is_loaded:
        return
    if lasting_name(began) == lasting_name(here):
        return
    if _is_place(began) and not Path(began).expanduser().exists() and Path(here).exists():
        log.warning("%s, which %s began with, is not there any more; it goes on with %s", began, folder, here)
        return
    raise UnlearunError(
        f"{folder} began with the model {began}, and cannot go on with {here}; leave the model out, or start a run of "
        "another: export the checkpoint (unlearun export CKPT FOLDER) to begin with its weights"
    )


def _is_place(name: str) -> bool:
    """Say whether a name can only be that of a file or a folder, and of no model of the hub."""
    return name.startswith((".", "~", "/")) or Path(name).is_absolute() or name.count("/") > 1


def optimizer_settings(method: UnlearningMethod) -> dict[str, Any]:
    """Return what a method's optimizer and scheduler are made with, by dotted name, as far as it is plain values.

    Args:
        method: Whose.
    """
    found: dict[str, Any] = {}
    for part, given in (("optimizer", method.optimizer), ("lr_scheduler", method.lr_scheduler)):
        if given is not None:
            found[part] = str(given["class_path"])
            for name, value in (given.get("init_args") or {}).items():
                plain = list(value) if isinstance(value, (list, tuple)) else [value]
                if all(type(one) in KINDS for one in plain):
                    found[f"{part}.{name}"] = plain if isinstance(value, (list, tuple)) else value
    return found


def check_optimizer(stored: Mapping[str, Any], method: UnlearningMethod) -> None:
    """Check that an optimizer and scheduler are those of a checkpoint, whose settings would silently replace others.

    Args:
        stored: Settings of the run that wrote it.
        method: What is to go on.

    Raises:
        UnlearunError: One differs.
    """
    own = optimizer_settings(method)
    parts = [name for name in ("optimizer", "lr_scheduler") if stored.get(name) != own.get(name)]
    # A command spells every setting out and a program only some: what one of them leaves to torch is not compared.
    shared = [name for name in own if name in stored and own[name] != stored[name]]
    name = next(iter(parts or shared), None)
    if name is not None:
        there, here = stored.get(name, "none"), own.get(name, "none")
        option = name.replace(".", ".init_args.")
        raise UnlearunError(
            f"the checkpoint goes on with the optimizer that it holds, so {option} {here} would not count ({there} "
            "there): give what it began with, or start anew from its weights (--model.model FOLDER, which unlearun "
            "export CKPT FOLDER makes of a checkpoint)"
        )
