"""Where rows come from: JSON files, Hugging Face datasets, Python lists; checked before any model is loaded."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from unlearun.errors import SHOWN, UnlearunError, all_at_once, closest, shown
from unlearun.files import exists
from unlearun.hub import SIGN_IN, hub_or_cache, is_gated
from unlearun.shipped import find_asset

if TYPE_CHECKING:
    from datasets import Dataset

    Source: TypeAlias = str | dict[str, Any] | list[dict[str, Any]] | Dataset
else:  # the command line can name a source, but not hold a Dataset object
    # Without types inside: of Any jsonargparse would read a text as YAML once more, and make a mapping of "Q: A".
    Source = str | dict | list

PEEKED = 1 << 16
SOURCE_KEYS = ("path", "name", "split", "revision")
_TEXT, _TEXT_OR_NONE, _FLAG = ("text", (str,)), ("text or null", (str, type(None))), ("true or false", (bool,))
_COUNT = ("a number of 1 or more", (int,))
# What a source may say of its own set beside: for each option what is expected, in words and as types.
OPTIONS: dict[str, tuple[str, tuple[type, ...]]] = {
    "question_key": _TEXT,
    "answer_key": _TEXT,
    "alternate_key": _TEXT_OR_NONE,
    "paraphrase_key": _TEXT,
    "perturbed_key": _TEXT,
    "text_key": _TEXT,
    "min_characters": _COUNT,
    "joined": _FLAG,
    "continues": _FLAG,
    "prompt_template": _TEXT,
    "system_prompt": _TEXT_OR_NONE,
    "chat_template": _FLAG,
    "chat_template_kwargs": ("a mapping of names to values", (Mapping,)),
    "question_template": _TEXT,
    "prefill": _TEXT,
    "given_tokens": _COUNT,
    "shots": ("a source, as that of the set", (str, Mapping, list)),
    "max_length": _COUNT,
    "max_new_tokens": _COUNT,
}


@dataclass(frozen=True, slots=True)
class Row:
    """One object of a source.

    Attributes:
        values: Its keys and values.
        origin: Where it stands, for messages: ``forget.json, line 3``.
    """

    values: Mapping[str, Any]
    origin: str


def read_rows(source: Source, where: str) -> list[Row]:
    """Read all rows of a source.

    Args:
        source: A ``.json`` or ``.jsonl`` file (a list of objects, or one object a line), a file that ships with
            the package (``pocket/forget.json``), the id of a dataset on the Hugging Face hub, a mapping with
            ``path`` and any of ``name``, ``split``, ``revision``, a ``datasets.Dataset``, or a list of dicts.
            In a file, ``split`` picks the rows whose ``split`` key has that value.
        where: The set that the source is for, as messages should call it.

    Returns:
        The rows, at least one.

    Raises:
        UnlearunError: The source does not exist, is empty or broken; the message names file, line and remedy.
    """
    if isinstance(source, str):
        source = {"path": source}
    if isinstance(source, Mapping) and not hasattr(source, "num_rows"):  # a DatasetDict is a mapping too, of splits
        rows = _read_named(source, where)
    else:
        rows = list(_read_objects(source, where))
    if not rows:
        raise UnlearunError(f"{where}: {_title(source)} holds no rows; expected at least one")
    return rows


class MissingFileError(UnlearunError):
    """A folder that stands in for the hub lacks the file of a set."""


def under_root(source: Source, root: str | Path, where: str) -> Source:
    """Find a source in a folder that stands in for the Hugging Face hub.

    Args:
        source: What `read_rows` takes.
        root: The folder. A dataset with a ``name`` and a ``split`` is looked for as ``NAME/SPLIT``, then as ``NAME``,
            each with ``.jsonl`` or ``.json`` behind it; without a ``name`` as ``SPLIT``, then as the id's last part. A
            file that is not here is looked for under its own name.
        where: The set that the source is for, as messages should call it.

    Returns:
        The file, as a source; what is no dataset of the hub, and is here, as it was.

    Raises:
        UnlearunError: The folder has no such file.
    """
    named = {"path": source} if isinstance(source, str) else source
    if not isinstance(named, Mapping) or not isinstance(named.get("path"), str):
        return source
    path, name, split = named["path"], named.get("name"), named.get("split")
    if any(key not in SOURCE_KEYS for key in named) or exists(Path(path)):
        return source
    if Path(path).suffix in (".json", ".jsonl"):
        inside = Path(root) / path
        return {**named, "path": str(inside)} if exists(inside) and not Path(path).is_absolute() else source
    stems = [f"{name}/{split}", name] if name else [split, path.rpartition("/")[2]]
    files = [Path(root) / f"{stem}{suffix}" for stem in stems if stem for suffix in (".jsonl", ".json")]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        tried = ", ".join(str(file.relative_to(root)) for file in files)
        reason = f"has none of {tried}" if Path(root).is_dir() else "is no folder"
        raise MissingFileError(
            f"{where}: data.root {shown(str(root))} {reason}; put the file there, name another source for the set "
            "or null, or leave out data.root to read from the hub"
        )
    # A file of one split need not say so in every row; one that does holds several.
    tells = split is not None and file.stem == name and _has_splits(file)
    return {"path": str(file), "split": split} if tells else {"path": str(file)}


def _has_splits(file: Path) -> bool:
    """Say whether the first rows of a file say which split they belong to."""
    try:
        with file.open("rb") as opened:
            return b'"split"' in opened.read(PEEKED)
    except OSError:
        return False  # to be said when it is read


def _read_named(source: Mapping[str, Any], where: str) -> list[Row]:
    unknown = [key for key in source if key not in SOURCE_KEYS]
    if unknown or not isinstance(source.get("path"), str):
        known = [*SOURCE_KEYS, *OPTIONS]
        meant = closest(str(unknown[0]), known) if unknown and unknown[0] not in known else ""
        found = f"unknown key {unknown[0]!r}.{meant}" if unknown else "no path."
        raise UnlearunError(
            f"{where}: {found} A source has the keys {', '.join(SOURCE_KEYS)}; path is required. A set of the "
            f"datamodule may have {', '.join(OPTIONS)} too; shots are read with the keys of their set"
        )
    path: str = source["path"]
    split = source.get("split")
    file = Path(path)
    try:
        if not file.exists() and (asset := find_asset(path)):
            file = asset
    except OSError as error:  # too long a name, or a folder that may not be read
        raise UnlearunError(f"{where}: there is no file {shown(path)}: {error.strerror}") from error
    if file.is_dir():
        raise UnlearunError(f"{where}: {path} is a folder; name a .json or .jsonl file in it")
    if file.is_file():
        rows = _read_file(file)
        if split is None:
            return rows
        chosen = [row for row in rows if row.values.get("split") == split]
        if not chosen:
            seen = sorted({shown(row.values["split"]) for row in rows if "split" in row.values})
            found = ", ".join(seen[:SHOWN]) or "no row with a key 'split'"
            raise UnlearunError(f"{where}: no row of {path} has split {split!r}; found {found}")
        return chosen
    if file.suffix in (".json", ".jsonl") or path.count("/") > 1 or path.startswith((".", "/", "~")):
        siblings = [entry.name for entry in file.parent.iterdir()] if file.parent.is_dir() else []
        raise UnlearunError(f"{where}: there is no file {path}.{closest(file.name, siblings)}")
    return list(_read_objects(_load_hub({"split": "train", **source}, where), where))


def _load_hub(source: Mapping[str, Any], where: str) -> Any:  # noqa: ANN401 - datasets has no common type
    from datasets import load_dataset

    try:
        with hub_or_cache():
            return load_dataset(
                source["path"], name=source.get("name"), split=source["split"], revision=source.get("revision")
            )
    except Exception as error:  # datasets raises many kinds: network, missing id, wrong config or split
        raise UnlearunError(
            f"{where}: {source['path']!r} is no file here, and could not be loaded as a dataset of the Hugging Face "
            f"hub ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}); "
            + (SIGN_IN if is_gated(error) else "check the id, name, split and the network")
        ) from error


def _read_objects(source: Any, where: str) -> Iterator[Row]:  # noqa: ANN401 - a list or a Dataset
    title = _title(source)
    if hasattr(source, "keys") or not hasattr(source, "__iter__"):
        raise UnlearunError(
            f"{where}: expected a path, a list of dicts or a datasets.Dataset, found {title}"
            + ("; choose one of its splits" if hasattr(source, "keys") else "")
        )
    for index, values in enumerate(source):
        origin = f"{title}, row {index}"
        if not isinstance(values, Mapping):
            raise UnlearunError(f"{origin}: expected an object with keys, found {type(values).__name__}")
        yield Row(values, origin)


def _title(source: Any) -> str:  # noqa: ANN401 - any kind of source
    if isinstance(source, Mapping) and not hasattr(source, "num_rows"):
        return str(source.get("path", "the source"))
    if isinstance(source, list):
        return "the list"
    return f"the {type(source).__name__}"


def _read_file(file: Path) -> list[Row]:
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UnlearunError(f"{file}, line {line}: not UTF-8 text; save the file as UTF-8") from error
    except OSError as error:
        raise UnlearunError(f"{file} cannot be read: {error.strerror}") from error
    if not text.strip():
        raise UnlearunError(f"{file} is empty; expected a list of objects, or one object a line")
    parse = _parse_list if text.lstrip().startswith("[") else _parse_lines
    problems: list[str] = []
    rows: list[Row] = []
    found = list(parse(text, problems))
    on_line = Counter(line for line, _ in found)
    for index, (line, value) in enumerate(found):
        # a list may stand in one line, which would name no row
        place = f"line {line}" if on_line[line] == 1 else f"line {line}, row {index}"
        if isinstance(value, dict):
            rows.append(Row(value, f"{file}, {place}"))
        else:
            problems.append(f"{place}: expected an object with keys, found {shown(value)}")
    if problems:
        raise all_at_once(problems, str(file))
    return rows


def _parse_lines(text: str, problems: list[str]) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                problems.append(_broken(number, error))
            else:
                yield number, value


def _parse_list(text: str, problems: list[str]) -> Iterator[tuple[int, Any]]:
    decoder = json.JSONDecoder()
    at, counted, number = text.index("[") + 1, 0, 1
    first = True
    while True:
        at = _skip(text, at, " \t\r\n")
        if first and text[at : at + 1] == "]":
            break
        number, counted = number + text.count("\n", counted, at), at
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            line = getattr(error, "lineno", number)
            problems.append(_broken(line, error))
            return  # where the next object starts is anyone's guess
        yield number, value
        first = False
        at = _skip(text, at, " \t\r\n")
        if text[at : at + 1] == "]":
            break
        if text[at : at + 1] != ",":
            line = text.count("\n", 0, at) + 1
            problems.append(f"line {line}: expected ',' or ']' after an object, found {shown(text[at : at + 10])}")
            return
        at += 1
    at = _skip(text, at + 1, " \t\r\n")
    if at < len(text):
        line = text.count("\n", 0, at) + 1
        problems.append(f"line {line}: text after the end of the list: {shown(text[at : at + 20])}")


def _skip(text: str, at: int, characters: str) -> int:
    while at < len(text) and text[at] in characters:
        at += 1
    return at


def _broken(line: int, error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        reason = error.msg
    else:
        reason = "nested too deep" if isinstance(error, RecursionError) else "a number of too many digits"
    return f"line {line}: broken JSON ({reason}); expected a list of objects, or one object a line"
