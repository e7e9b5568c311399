"""An attack as its config has it."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, get_loader

from unlearun.attacks.base import Attack
from unlearun.errors import UnlearunError, closest, shown
from unlearun.files import exists
from unlearun.kinds import check_kinds
from unlearun.shipped import check_config, configs_root, find_config

FOLDER = "attacks"
# Files that a run keeps beside what attacks have found.
TAKEN = ("summary", "unattacked")


def shipped_attacks() -> list[str]:
    """Return the names of the attacks that ship with the package, in alphabetical order."""
    return sorted(file.stem for file in (configs_root() / FOLDER).glob("*.yaml"))


def read_attack(name: str) -> tuple[str, Attack, dict[str, Any]]:
    """Make an attack.

    Args:
        name: That of a shipped attack, such as ``relearn``, or a YAML file with ``class_path`` and ``init_args``.

    Returns:
        What it is called, the attack, and its config, every default spelt out.

    Raises:
        UnlearunError: There is no such attack or file, or it has an argument that the class does not take.
    """
    file = _find(name)
    if file.stem in TAKEN:
        raise UnlearunError(
            f"an attack cannot be called {file.stem!r}, for a file of a run has that name; rename {file}"
        )
    check_config(file)
    # By the rules that other configs are read by: 1e-4 is a number.
    stored: Any = get_loader("yaml")(file.read_text(encoding="utf-8"))
    try:
        return file.stem, *make_attack(stored)
    except UnlearunError as error:
        raise UnlearunError(f"{file}: {error}") from error


def make_attack(config: Any) -> tuple[Attack, dict[str, Any]]:  # noqa: ANN401 - what YAML has made of a file
    """Make an attack of its config.

    Args:
        config: A mapping of ``class_path`` and ``init_args``.

    Returns:
        The attack, and its config, every default spelt out.

    Raises:
        UnlearunError: It is another thing, or has an argument that the class does not take.
    """
    unknown = [key for key in config if key not in ("class_path", "init_args")] if isinstance(config, Mapping) else []
    if unknown:
        raise UnlearunError(f"has a key {unknown[0]!r}; an attack is a class_path, such as Relearn, and its init_args")
    if not isinstance(config, Mapping) or not isinstance(config.get("class_path"), str):
        raise UnlearunError("names no class_path; an attack is a class_path, such as Relearn, and its init_args")
    arguments = config.get("init_args", {})
    if not isinstance(arguments, Mapping):
        raise UnlearunError(f"init_args is {shown(arguments)}; expected arguments by name")
    _check_arguments(config["class_path"], arguments)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Attack, "attack", required=True)
    try:
        parsed = parser.parse_object({"attack": dict(config)})
        made: Any = parser.instantiate_classes(parsed)
    except UnlearunError:
        raise
    except Exception as error:  # jsonargparse's own, or what a class says of an argument
        raise _refused(config, error) from error
    return made["attack"], dict(parsed["attack"].as_dict())


def _check_arguments(class_path: str, arguments: Mapping[str, Any]) -> None:
    """Check names and kinds of arguments, of a class that ships or has been imported."""
    known = {name: cls for cls in _kinds(Attack) for name in (cls.__name__, f"{cls.__module__}.{cls.__qualname__}")}
    shipped = class_path.rpartition(".")[2] if class_path.startswith("unlearun.") else class_path
    cls = known.get(class_path) or known.get(shipped)
    if cls is None:
        return
    parameters = inspect.signature(cls).parameters.values()
    names = [one.name for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    if len(names) < len(parameters):  # it takes any
        return
    if unknown := [str(name) for name in arguments if name not in names]:
        raise UnlearunError(
            f"{cls.__name__} has no argument {unknown[0]!r}.{closest(unknown[0], names)} It has {', '.join(names)}"
        )
    check_kinds(cls, arguments)


def _find(name: str) -> Path:
    if exists(Path(name)):
        return Path(name)
    if name in (known := shipped_attacks()):
        return find_config(f"{FOLDER}/{name}")
    raise UnlearunError(
        f"there is no attack {shown(name)}, nor a file of this name.{closest(name, known)} Shipped are "
        f"{', '.join(known)}"
    )


def _refused(config: Mapping[str, Any], error: Exception) -> UnlearunError:
    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, UnlearunError):
        inner = inner.__cause__ or inner.__context__
    if inner is not None:
        return UnlearunError(str(inner))
    own = [cls for cls in _kinds(Attack) if cls.__module__.startswith("unlearun.") and not inspect.isabstract(cls)]
    names = [cls.__name__ for cls in own]
    path = config["class_path"]
    if "." not in path and path not in names:
        return UnlearunError(f"there is no attack {path!r}.{closest(path, names)} Known: {', '.join(sorted(names))}")
    if "." in path and (why := _import_problem(path)):
        return UnlearunError(f"the attack {path} cannot be made: {why}")
    return UnlearunError(_last(str(error)))


def _import_problem(path: str) -> str | None:
    """Say why a class of the user's own is no attack that can be made, if that is the reason."""
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever their module does
        return f"{error}; expected the dotted path of a class, whose module stands here or is installed"
    if not isinstance(found, type) or not issubclass(found, Attack):
        return "it is no attack; derive it from unlearun.attacks.Attack"
    if inspect.isabstract(found):
        return f"it lacks {', '.join(sorted(found.__abstractmethods__))}"
    return None


def _kinds(base: Any) -> list[type[Attack]]:  # noqa: ANN401 - an abstract class
    """Return all attacks that have been imported."""
    return [cls for child in base.__subclasses__() for cls in (child, *_kinds(child))]


def _last(message: str) -> str:
    """Return what a nested complaint says at its end, in a line."""
    lines = [line.strip(" -") for line in message.splitlines() if line.strip()]
    return " ".join(" ".join(lines).split())[:400] if lines else "it cannot be read"
