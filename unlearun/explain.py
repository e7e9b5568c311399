"""Turn jsonargparse's complaints into one sentence that says what may be meant."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields
from types import ModuleType

import torch
from lightning.pytorch import Trainer

from unlearun.data import UnlearningDataModule
from unlearun.errors import closest
from unlearun.methods import METHODS
from unlearun.models import LoRA

TOP = ("config", "seed_everything", "trainer", "model", "data", "optimizer", "lr_scheduler", "output_dir", "ckpt_path")
HINT = " All options: unlearun fit --help; of a method: unlearun fit --model NAME --help"


def explain(message: str) -> str:
    """Shorten a complaint of the parser, and add what may be meant.

    Args:
        message: What jsonargparse or argparse said.

    Returns:
        One sentence about the option that is wrong.
    """
    # Complaints are nested: the last key is the one that is wrong, and those before it are its groups.
    keys = re.findall(r'Parser key "([\w.]+)"', message)
    group, complaint = ".".join(keys), re.split(r'Parser key "[\w.]+"', message)[-1]
    if found := re.search(r"arguments are required: (.+)", complaint):
        names = [re.sub(r"^(fit|validate|test|predict)\.", "", key.strip()) for key in found[1].split(",")]
        missing = ", ".join(f"--{group}.{name}" if group else f"--{name}" for name in names)
        return f"missing: {missing}; give them, or start from a config: --config rmu"
    if found := re.search(r"[Uu]nrecognized arguments: (?:--)?([\w.\-]+)", complaint):
        return _unknown("", found[1].partition("=")[0])
    if found := re.search(r"argument (\S+): expected one argument", complaint):
        return f"{found[1]}, or an option that begins so, has no value; write it behind the option"
    if found := re.search(r"Unable to load config [\"'](.*?)[\"']", complaint):
        return f"{keys[-1]} is {found[1]!r}; expected a file of options, or options one by one: --{keys[-1]}.NAME VALUE"
    if found := re.search(r"Option '([^']+)' is not accepted", complaint):
        return _unknown(f"{group}." if group else "", found[1])
    if found := re.search(r"does not accept (?:option|nested key) '([^']+)'", complaint):
        return _unknown("", found[1])
    return _wrong_value(group, complaint) or " ".join(message.split())


def _wrong_value(option: str, complaint: str) -> str | None:
    found = re.search(r"(?:Got|Given) value: (.*?)\s*$", complaint, re.MULTILINE)
    if found is None:
        return None
    if nested := re.match(r"NestedArg\(key='([^']+)'", found[1]):
        return _unknown(f"{option}.", nested[1])
    named = re.findall(r"Expected an? (?:<class '(\w+)'>|typing\.Literal(\[.*?\]))", complaint[: found.start()])
    kinds = list(dict.fromkeys(plain or f"one of {choice}" for plain, choice in named if plain != "NoneType"))
    wanted_class = re.search(r"Expected a dot import path string: (\S+)|Import path does not", complaint)
    if wanted_class is not None and not kinds:
        return _unknown_class(option, wanted_class[1] or found[1])
    if wanted_class is not None:
        kinds.append("the name of a class")
    return f"{option} is {found[1]!r}; expected {' or '.join(kinds) or 'another kind of value'}"


def _unknown_class(group: str, name: str) -> str:
    if group == "model.lora":
        return f"model.lora is {name!r}; expected settings by name, such as --model.lora.r 16"
    bases: dict[str, Sequence[type]] = {
        "model": METHODS,
        "optimizer": _classes(torch.optim, torch.optim.Optimizer),
        "lr_scheduler": _classes(torch.optim.lr_scheduler, torch.optim.lr_scheduler.LRScheduler),
    }
    names = sorted({cls.__name__ for cls in bases.get(group, ())})
    known = f" Known: {', '.join(names)}" if names else ""
    return f"there is no class {name!r} for {group or 'this option'}.{closest(name, names)}{known}"


def _classes(module: ModuleType, base: type) -> list[type]:
    """Return the public classes of a module that derive from another."""
    found = [value for name, value in vars(module).items() if isinstance(value, type) and not name.startswith("_")]
    return [cls for cls in found if issubclass(cls, base) and cls is not base]


def _unknown(group: str, key: str) -> str:
    name = key if key.startswith(group) else group + key
    known = list(known_keys())
    if name in known:
        return f"{name!r} is an option of other methods, not of this one: leave it out.{HINT}"
    if (bare := name.lstrip("-")) != name:
        return f"there is no option {name!r}; options begin with two dashes: --{bare}"
    first = name.partition(".")[0]
    # The slip may be in the first word: "modell.class_path".
    hint = closest(name, known) if first in TOP else closest(first, TOP)
    return f"there is no option {name!r}.{hint}{HINT}"


def known_keys() -> Iterator[str]:
    """Yield every key that a config may have: those of the Trainer, the data, all methods and the optimizer."""
    yield from TOP
    groups: dict[str, Sequence[type]] = {
        "trainer": [Trainer],
        "data": [UnlearningDataModule],
        "model": METHODS,
        "optimizer": [torch.optim.AdamW],
    }
    for group, classes in groups.items():
        for owner in {base for cls in classes for base in cls.__mro__ if "__init__" in vars(base)}:
            signature = inspect.signature(owner.__init__)  # type: ignore[misc]
            for name, parameter in signature.parameters.items():
                if name not in ("self", "args", "kwargs") and parameter.kind is not parameter.VAR_KEYWORD:
                    yield f"{group}.{name}"
    yield from (f"model.lora.{field.name}" for field in fields(LoRA))
