"""Token ids of large sets, kept on disk for the next start under a name that says all that they follow from."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from array import array
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from unlearun.data.examples import TokenTable
from unlearun.data.formatting import Formatter
from unlearun.data.rows import Item
from unlearun.files import written_whole

log = logging.getLogger(__name__)

# To be counted up whenever the same texts and settings give other rows than before.
FORMAT = 1
# Fewer characters take a tokeniser a second or two, some 10,000 questions: not worth a file on the user's disk.
WORTH = 2_000_000
COLUMNS = ("tokens", "lengths", "starts", "ends", "items")
OFF = ("0", "false", "no", "off", "none")


def cache_folder(setting: bool | str) -> Path | None:
    """Say where token ids are kept.

    Args:
        setting: A folder; True for that of the environment variable ``UNLEARUN_CACHE``, or else ``unlearun`` in
            ``XDG_CACHE_HOME`` or ``~/.cache``; False for nowhere. The variable may say "off", too.

    Returns:
        The folder, whether or not it exists; None for nowhere.
    """
    if setting is False:
        return None
    named = setting if isinstance(setting, str) else os.environ.get("UNLEARUN_CACHE", "")
    if named.lower() in OFF:
        return None
    try:
        if named:
            return Path(named).expanduser()
        caches = os.environ.get("XDG_CACHE_HOME", "")
        return (Path(caches) if os.path.isabs(caches) else Path.home() / ".cache") / "unlearun"
    except RuntimeError:  # this user has no home
        return None


class TokenCache:
    """Makes token ids of sets, or finds what an earlier start made of the same texts with the same settings.

    Args:
        formatter: How they are made.
        folder: Where they are kept; None for nowhere.
    """

    def __init__(self, formatter: Formatter, folder: Path | None) -> None:
        self.formatter = formatter
        self.folder = folder

    def encode(self, items: Sequence[Item], where: str) -> TokenTable:
        """Make token ids of a whole set, as `Formatter.encode` does, or read them.

        Args:
            items: Its rows.
            where: The set, as messages should call it.

        Returns:
            All rows.

        Raises:
            UnlearunError: All rows that cannot be kept, at once; such a set is never written.
        """
        # What a tokenizer written in Python does follows from its code, of which no digest can be made.
        fast = getattr(self.formatter.tokenizer, "is_fast", False)
        if self.folder is None or not fast or _characters(items) < WORTH:
            return self.formatter.encode(items, where)
        file = self.folder / "tokens" / f"{self._key(items)}.safetensors"
        table = read_table(file)
        if table is not None:
            log.info("%s: the token ids of %d rows were read from %s", where, len(table), file)
            return table
        table = self.formatter.encode(items, where)
        write_table(file, table)
        return table

    def _key(self, items: Sequence[Item]) -> str:
        """Return 32 hexadecimal digits that change whenever the token ids may."""
        state = hashlib.blake2b(self._settings, digest_size=16)
        for item in items:
            question = item.question
            # Lengths first, so that no two rows can look like one another.
            size = "text" if question is None else len(question)
            state.update(f"{size},{len(item.answer)}:{question or ''}{item.answer}".encode())
        return state.hexdigest()

    @cached_property
    def _settings(self) -> bytes:
        """A digest of the tokenizer and of all that the formatter makes of it."""
        import tokenizers
        import transformers

        formatter, tokenizer = self.formatter, self.formatter.tokenizer
        # What a row becomes shows what no setting does: a template may write today's date. It goes first, for a
        # call sets what its tokenizer says of padding and truncation.
        sample = [formatter.prompt_ids("?"), formatter.answer_ids("?"), formatter.end_id]
        settings = {
            "format": FORMAT,
            "versions": [tokenizers.__version__, transformers.__version__],
            "class": f"{type(tokenizer).__module__}.{type(tokenizer).__qualname__}",
            "special": [tokenizer.special_tokens_map, getattr(tokenizer, "split_special_tokens", False)],
            "template": tokenizer.chat_template if formatter.uses_chat else formatter.prompt,
            "system": formatter.system,
            "max_length": formatter.max_length,
            "refuse_long": formatter.refuse_long,
            "given": formatter.given,
            "sample": sample,
        }
        inner: Any = tokenizer
        written = json.dumps(settings, sort_keys=True, default=str) + str(inner.backend_tokenizer.to_str())
        return hashlib.blake2b(written.encode(errors="surrogatepass")).digest()


def _characters(items: Sequence[Item]) -> int:
    return sum(len(item.question or "") + len(item.answer) for item in items)


def read_table(file: Path) -> TokenTable | None:
    """Read what `write_table` wrote; None where there is no such file, or it is broken.

    Args:
        file: Its name.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "numpy") as stored:
            columns = {name: array("i", stored.get_tensor(name).tobytes()) for name in COLUMNS}
            said = stored.metadata() or {}
        if said.get("checksum") != _checksum(columns, said.get("cuts")):
            raise ValueError("it is not what was written")
        return TokenTable(**columns, cuts=int(said["cuts"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        log.info("%s is broken (%s); the token ids are made anew", file, error)
        return None


def write_table(file: Path, table: TokenTable) -> None:
    """Write token ids, whole or not at all; where that fails, a warning says so.

    Args:
        file: Where to; its folder is made when it does not exist.
        table: All rows of a set.
    """
    import numpy as np
    from safetensors.numpy import save

    columns: dict[str, array[int]] = {name: getattr(table, name) for name in COLUMNS}
    said = {"checksum": _checksum(columns, str(table.cuts)), "cuts": str(table.cuts)}
    content = save({name: np.frombuffer(column, np.int32) for name, column in columns.items()}, said)
    try:
        with written_whole(file) as scratch:
            scratch.write_bytes(content)  # save_file's files none but their owner may read
    except OSError as error:
        log.warning(
            "token ids cannot be kept in %s (%s), so every start makes them anew; name a folder with --data.cache DIR, "
            "or switch this off with --data.cache false",
            file.parent,
            error,
        )


def _checksum(columns: Mapping[str, array[int]], cuts: str | None) -> str:
    state = hashlib.blake2b(f"{cuts};".encode(errors="surrogatepass"), digest_size=16)
    for name in COLUMNS:
        state.update(columns[name])
    return state.hexdigest()
