"""Find the configs and data that ship with the package."""

from __future__ import annotations

import shutil
from pathlib import Path

from unlearun.errors import UnlearunError, closest

PACKAGE = Path(__file__).resolve().parent
ASSETS = PACKAGE / "assets"


def configs_root() -> Path:
    """Return the folder of shipped configs: inside an installed package, beside it in a checkout."""
    inside = PACKAGE / "configs"
    return inside if inside.is_dir() else PACKAGE.parent / "configs"


def find_config(name: str) -> Path:
    """Resolve what follows ``--config``: a local file first, else a shipped one.

    Args:
        name: A path, with or without ``configs/`` in front and ``.yaml`` behind: ``rmu``,
            ``configs/rmu.yaml``, ``models/smollm2``.

    Returns:
        A file that exists.

    Raises:
        UnlearunError: Neither a local nor a shipped file has this name.
    """
    path = Path(name)
    if path.is_file():
        return path
    root = configs_root()
    inner = Path(*path.parts[1:]) if path.parts[:1] == ("configs",) and len(path.parts) > 1 else path
    if not inner.is_absolute() and ".." not in inner.parts:
        for candidate in (root / inner, root / f"{inner}.yaml"):
            if candidate.is_file():
                return candidate
    shipped = sorted(str(file.relative_to(root).with_suffix("")) for file in root.rglob("*.yaml"))
    hint = closest(str(inner).removesuffix(".yaml"), shipped)
    raise UnlearunError(
        f"config {name!r} is neither a file here nor a shipped config.{hint} Shipped are: {', '.join(shipped)}"
    )


def check_config(file: Path) -> None:
    """Check that a file can be a config: text, YAML, options by name.

    Args:
        file: It exists.

    Raises:
        UnlearunError: It cannot be read, or is something else.
    """
    import yaml

    try:
        stored = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UnlearunError(f"config {file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UnlearunError(f"config {file} is not UTF-8 text; expected YAML") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f", line {mark.line + 1}"
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise UnlearunError(f"config {file}{where}: broken YAML ({problem:.100})") from error
    if not isinstance(stored, dict):
        found = "nothing" if stored is None else f"a {type(stored).__name__}"
        raise UnlearunError(f"config {file} holds {found}; expected options by name, such as model: and data:")


def find_asset(name: str) -> Path | None:
    """Return the shipped file or folder of this name (``pocket/forget.json``), or None."""
    path = Path(name)
    if path.is_absolute() or ".." in path.parts:
        return None
    asset = ASSETS / path
    return asset if path.parts and asset.exists() else None


def is_shipped(name: str) -> bool:
    """Say whether a name means a shipped file: there is one, and no local file of this name."""
    return not Path(name).exists() and find_asset(name) is not None


def copy_configs(folder: str | Path) -> list[Path]:
    """Copy all shipped configs into a folder, to be edited there.

    Args:
        folder: Where to; made when it does not exist. Files that stand there already are never overwritten.

    Returns:
        The files written.

    Raises:
        UnlearunError: A file of that name stands there already, or the folder cannot be written.
    """
    root, target = configs_root(), Path(folder)
    files = sorted(root.rglob("*.yaml"))
    taken = [target / file.relative_to(root) for file in files if (target / file.relative_to(root)).exists()]
    if taken:
        raise UnlearunError(f"{taken[0]} exists already; name an empty folder, or remove it first")
    try:
        for file in files:
            copy = target / file.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    except OSError as error:
        raise UnlearunError(f"cannot write the configs to {target}: {error.strerror}") from error
    return [target / file.relative_to(root) for file in files]
