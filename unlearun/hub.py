"""The Hugging Face hub, asked only where it can be reached."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies

SECONDS = 3.0
SIGN_IN = (
    "its owner hands it out on request: accept the terms on its page of the hub, then sign in here (hf auth login, or "
    "the variable HF_TOKEN)"
)


def hub_answers() -> bool:
    """Say whether the hub can be reached; behind a proxy that is taken for granted."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    address = urlsplit(constants.ENDPOINT)
    if address.hostname is None or getproxies():
        return True
    try:
        port = address.port or (80 if address.scheme == "http" else 443)
        with socket.create_connection((address.hostname, port), timeout=SECONDS):
            return True
    except OSError:
        return False


def is_gated(error: Exception) -> bool:
    """Say whether the hub has refused what it gives to those alone who have accepted its terms.

    Args:
        error: What one of its libraries has raised.

    >>> is_gated(OSError("You are trying to access a gated repo."))
    True
    >>> is_gated(OSError("If you are trying to access a private or gated repo, make sure you are authenticated."))
    False
    """
    # What is misspelt is "private or gated" to the hub.
    said = re.search(r"(access a|is a|access) gated (repo|dataset)", str(error))
    return said is not None or type(error).__name__ == "GatedRepoError"


@contextmanager
def hub_or_cache() -> Iterator[None]:
    """Let what is asked of the hub come out of its cache alone, for as long as the context lasts, where it is away.

    Left to themselves its libraries try for most of a minute, whatever is asked, before they look into the cache.
    """
    from huggingface_hub import constants

    if hub_answers():
        yield
        return
    settings = [constants, sys.modules.get("datasets.config")]
    before = [(module, module.HF_HUB_OFFLINE) for module in settings if module is not None]
    try:
        for module, _ in before:
            module.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
        yield
    finally:
        for module, was in before:
            module.HF_HUB_OFFLINE = was  # type: ignore[attr-defined]
