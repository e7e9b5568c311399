"""What is said of packages that are not there, and whether they are by now."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version


def needs(package: str, extra: str) -> str:
    """Say that a package is needed, and how to install it.

    Args:
        package: What it is installed as.
        extra: The extra of unlearun that brings it along.

    >>> needs("peft", "lora")
    "needs the package peft; pip install 'unlearun[lora]'"
    """
    return f"needs the package {package}; pip install 'unlearun[{extra}]'"


def is_installed_now(said: str) -> bool:
    """Say whether a package that was needed has been installed since.

    Args:
        said: Any reason; only what `needs` has said can be mended so.

    >>> is_installed_now(needs("numpy", "none")), is_installed_now(needs("nampy", "none")), is_installed_now("no rows")
    (True, False, False)
    """
    named = re.match(r"needs the package (\S+);", said)
    try:
        return named is not None and bool(version(named[1]))
    except PackageNotFoundError:
        return False
