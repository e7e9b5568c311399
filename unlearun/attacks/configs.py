"""An attack as its config has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from unlearun.attacks.base import Attack
from unlearun.errors import UnlearunError, closest
from unlearun.shipped import check_config, configs_root, find_config

FOLDER = "attacks"


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
    check_config(file)
    stored: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Attack, "attack", required=True)
    unknown = [key for key in stored if key not in ("class_path", "init_args")]
    if unknown or "class_path" not in stored:
        found = f"has a key {unknown[0]!r}" if unknown else "names no class_path"
        raise UnlearunError(f"{file} {found}; an attack is a class_path, such as Relearn, and its init_args")
    try:
        parsed = parser.parse_object({"attack": stored})
        made: Any = parser.instantiate_classes(parsed)
    except UnlearunError:
        raise
    except Exception as error:  # jsonargparse's own, or what a class says of an argument
        raise _refused(file, stored, error) from error
    config: Namespace = parsed["attack"]
    return file.stem, made["attack"], dict(config.as_dict())


def _find(name: str) -> Path:
    if Path(name).is_file():
        return Path(name)
    if name in (known := shipped_attacks()):
        return find_config(f"{FOLDER}/{name}")
    raise UnlearunError(
        f"there is no attack {name!r}, nor a file of this name.{closest(name, known)} Shipped are {', '.join(known)}"
    )


def _refused(file: Path, stored: dict[str, Any], error: Exception) -> UnlearunError:
    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, UnlearunError):
        inner = inner.__cause__ or inner.__context__
    if inner is not None:
        return UnlearunError(f"{file}: {inner}")
    names = [cls.__name__ for cls in _kinds(Attack)]
    hint = closest(str(stored["class_path"]), names) if stored["class_path"] not in names else ""
    return UnlearunError(f"{file}: {_last(str(error))}{hint}")


def _kinds(base: Any) -> list[type[Attack]]:  # noqa: ANN401 - an abstract class
    """Return all attacks that have been imported."""
    return [cls for child in base.__subclasses__() for cls in (child, *_kinds(child))]


def _last(message: str) -> str:
    """Return what a nested complaint says at its end, in a line."""
    lines = [line.strip(" -") for line in message.splitlines() if line.strip()]
    return " ".join(" ".join(lines).split())[:400] if lines else "it cannot be read"
