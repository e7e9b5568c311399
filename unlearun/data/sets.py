"""The sets of a run: read and checked once, made into token ids for a tokenizer, and chosen from for evaluation."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from unlearun.data.alternates import format_alternates
from unlearun.data.cache import TokenCache, cache_folder
from unlearun.data.collecting import uncollected
from unlearun.data.examples import Example
from unlearun.data.formatting import Formatter
from unlearun.data.rows import Item, check_rows, join_texts, without_short_texts
from unlearun.data.set_options import SetOptions
from unlearun.data.sources import Source, read_rows
from unlearun.errors import UnlearunError, shown
from unlearun.records import role_of
from unlearun.shipped import is_shipped

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

TRAINED = ("forget", "retain")


def name_sources(
    forget: Source | None,
    retain: Source | None,
    holdout: Source | None,
    utility: Source | None,
) -> dict[str, Source]:
    """Name the sources of a run.

    Args:
        forget: Called forget, unless None.
        retain: Called retain, unless None.
        holdout: Called holdout, unless None.
        utility: A source, called utility, or a mapping of names to sources.

    Returns:
        The sources by name.

    Raises:
        UnlearunError: There is nothing to train on, or a name is taken.
    """
    sources = {"forget": forget, "retain": retain, "holdout": holdout}
    if isinstance(utility, Mapping) and "path" not in utility:
        check_names(utility)
        taken = [name for name in utility if name in sources or role_of(name) != "utility"]
        if taken:
            raise UnlearunError(f"a utility set cannot be called {taken[0]!r}, for that names another role")
        sources.update(utility)
    else:
        sources["utility"] = utility
    named = {name: source for name, source in sources.items() if source is not None}
    if not any(name in named for name in TRAINED):
        raise UnlearunError("there is neither a forget nor a retain set; add --data.forget FILE")
    return named


def name_evaluated(
    sources: Mapping[str, Source], evaluation: Mapping[str, Source | None] | None
) -> tuple[dict[str, Source], dict[str, str]]:
    """Name what is evaluated.

    Args:
        sources: Those of a run, by name.
        evaluation: What is evaluated in their stead, by name; None for all of them.

    Returns:
        All sources, and for each evaluated name the source that it stands for: one of a run, or one of its own beside
        them.

    Raises:
        UnlearunError: ``evaluation`` is a source, or a name cannot be used.
    """
    if evaluation is None:
        return dict(sources), {name: name for name in sources}
    if isinstance(evaluation.get("path"), str):
        raise UnlearunError("evaluation maps names to sources: evaluation={'forget': {'path': ...}, ...}")
    check_names(evaluation)
    every, evaluated = dict(sources), {}
    for name, source in evaluation.items():
        if source is not None:
            evaluated[name] = name if every.get(name) == source else f"evaluation {name}"
            every[evaluated[name]] = source
    return every, evaluated


def check_names(names: Iterable[str]) -> None:
    """Check that values of sets can be told by their names, as in ``set/metric``, and files be named after them.

    Args:
        names: Of evaluated sets.

    Raises:
        UnlearunError: A name could not be that of a file, or would lead out of the run folder.
    """
    wrong = [name for name in names if not isinstance(name, str) or not re.fullmatch(r"\w[\w .+-]{0,99}", name)]
    if wrong:
        raise UnlearunError(
            f"a set cannot be called {shown(wrong[0])}, for files are named after it: use letters, digits, '_' and '-' "
            "(no '/')"
        )


class RowSets:
    """Named sets of rows.

    Args:
        sources: Where the rows of each set come from.
        options: How the rows of each set are read and asked.
        overlap: What happens when rows stand in forget and retain: "allow", "warn" or "error".
        seed: What the refusals, and the choice of evaluated rows, follow from.
        duplicates: What happens when a row stands in a set twice: "allow", "warn" or "error".
        cache: Where token ids of large sets are kept: see `cache_folder`.

    Attributes:
        formatters: What made the token ids of each set, once they are made.
        cautions: What was said of the rows, each once, without the places of files.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        options: Mapping[str, SetOptions],
        overlap: str,
        seed: int,
        duplicates: str = "warn",
        cache: bool | str = False,
    ) -> None:
        self.sources = sources
        self.options = options
        self.overlap = overlap
        self.duplicates = duplicates
        self.seed = seed
        self.cache = cache
        self.formatters: dict[str, Formatter] = {}
        self.cautions: dict[str, None] = {}
        self._items: dict[str, list[Item]] = {}
        self._shots: dict[str, tuple[tuple[str, str], ...]] = {}
        self._examples: dict[str, list[Example]] = {}

    def read(self) -> dict[str, list[Item]]:
        """Read and check all files; cheap when called again.

        Returns:
            The rows of each set.

        Raises:
            UnlearunError: A file is missing, empty or broken, or rows lack what they need.
        """
        if not self._items:
            with uncollected():
                self._items = self._read()
        return self._items

    def _read(self) -> dict[str, list[Item]]:
        items = {}
        for name, source in self.sources.items():
            where, options = f"the {name} set", self.options[name]
            rows = without_short_texts(read_rows(source, where), options.keys, options.min_characters, where)
            items[name] = check_rows(rows, options.keys, where, needs_alternate=name == "forget")
            if options.joined:
                items[name] = join_texts(items[name], where)
            if options.shots is not None:
                self._shots[name] = self._read_shots(name, options.shots)
        for said in dict.fromkeys(said for name in items for said in self.options[name].unfilled()):
            self._say(said)
        self._check_duplicates(items)
        self._check_overlap(items)
        self._check_holdout(items)
        return items

    def _read_shots(self, name: str, source: Source) -> tuple[tuple[str, str], ...]:
        where = f"the shots of the {name} set"
        items = check_rows(read_rows(source, where), self.options[name].keys, where)
        if texts := [item.origin for item in items if item.question is None]:
            raise UnlearunError(f"{where}: {texts[0]} has no question; shots are questions with answers")
        return tuple((item.question or "", item.answer) for item in items)

    def format(self, tokenizer: PreTrainedTokenizerBase, max_length: int, refuse_long: bool) -> None:
        """Make token ids of all rows, or read what an earlier start made of them.

        Args:
            tokenizer: The model's.
            max_length: The longest row in tokens, of sets that do not say so themselves.
            refuse_long: Whether an answer that must be cut is an error.

        Raises:
            UnlearunError: Rows that cannot be kept, all of a set at once.
        """
        self._examples, self.formatters = {}, {}
        caches: dict[Formatter, TokenCache] = {}  # one for most sets, for few are asked in a way of their own
        for name, items in self.read().items():
            made = self.options[name].formatter(tokenizer, max_length, refuse_long, self._shots.get(name, ()))
            cache = caches.setdefault(made, TokenCache(made, cache_folder(self.cache)))
            self.formatters[name] = cache.formatter
            table = cache.encode(items, f"the {name} set")
            self._examples[name] = table.examples(items)
            self._warn_of_cuts(name, table.cuts, len(items), made.max_length)

    def examples(self, name: str) -> list[Example]:
        """Return the rows of a set as token ids, in the order of the set."""
        return self._examples[name]

    def choose(self, name: str, most: int | None) -> list[Example]:
        """Return at most so many rows of a set, chosen by seed, in the order of the set.

        Args:
            name: The set.
            most: How many; None for all.
        """
        examples = self._examples[name]
        if most is None or len(examples) <= most:
            return examples
        generator = torch.Generator().manual_seed(self.seed)
        chosen = torch.randperm(len(examples), generator=generator)[:most]
        return [examples[i] for i in sorted(chosen.tolist())]

    def format_alternates(self, texts: Sequence[Sequence[str]]) -> list[list[Example]]:
        """Make token ids of the forget rows with their alternate answers.

        Args:
            texts: The alternate answers of each row.

        Returns:
            The examples of each row, with its id.

        Raises:
            UnlearunError: Answers that cannot be kept, all at once.
        """
        formatter = self.formatters["forget"]
        encode = TokenCache(formatter, cache_folder(self.cache)).encode
        alternates, cuts = format_alternates(encode, self._examples["forget"], texts)
        self._warn_of_cuts("forget (alternate answers)", cuts, sum(map(len, alternates)), formatter.max_length)
        return alternates

    def _check_holdout(self, items: Mapping[str, Sequence[Item]]) -> None:
        """Say when the model may have seen rows that it should not know, or they are of another kind."""
        shipped = {name: is_shipped(_path_of(self.sources[name])) for name in ("forget", "holdout") if name in items}
        if shipped.get("holdout") and not shipped.get("forget", True):
            self._say(
                f"the holdout set is {_path_of(self.sources['holdout'])}, which a config brought along for its own "
                "data, so membership inference compares unlike rows; name one of your own with --data.holdout, or null"
            )
        unseen = {(item.question, item.answer) for item in items.get("holdout", ())}
        for name in TRAINED:
            shared = sum((item.question, item.answer) in unseen for item in items.get(name, ()))
            if shared:
                self._say(
                    f"{shared} rows of holdout stand in {name} too; membership inference needs rows that the model "
                    "never saw"
                )

    def _check_duplicates(self, items: Mapping[str, Sequence[Item]]) -> None:
        if self.duplicates == "allow":
            return
        for name, rows in items.items():
            counts = Counter((row.question, row.answer) for row in rows)
            again = len(rows) - len(counts)
            if again:
                first = next(row for row in rows if counts[row.question, row.answer] > 1)
                self._refuse_or_say(
                    f"{name}: {again} of {len(rows)} rows stand there before already",
                    f" (first: {first.origin})",
                    ", so they count more than others; remove them",
                    "duplicates",
                )

    def _check_overlap(self, items: Mapping[str, Sequence[Item]]) -> None:
        if self.overlap == "allow" or not all(name in items for name in TRAINED):
            return
        retained = {(item.question, item.answer) for item in items["retain"]}
        shared = [item for item in items["forget"] if (item.question, item.answer) in retained]
        if shared:
            self._refuse_or_say(
                f"{len(shared)} row{'s stand' if len(shared) > 1 else ' stands'} in both forget and retain",
                f" (first: {shared[0].origin})",
                "; remove them from one, for they pull both ways",
                "overlap",
            )

    def _refuse_or_say(self, what: str, where: str, remedy: str, setting: str) -> None:
        """Make an error of what was found, or a warning, as the setting says."""
        if getattr(self, setting) == "error":
            raise UnlearunError(f"{what}{where}{remedy}, or set {setting}: warn")
        log.warning("%s", f"{what}{where}{remedy}")
        self.cautions[f"{what}{remedy}"] = None

    def _warn_of_cuts(self, name: str, cuts: int, answers: int, max_length: int) -> None:
        if cuts:
            self._say(
                f"{name}: {cuts} of {answers} answers are longer than max_length={max_length} tokens and were cut"
            )

    def _say(self, caution: str) -> None:
        log.warning("%s", caution)
        self.cautions[caution] = None


def _path_of(source: Source) -> str:
    path = source.get("path") if isinstance(source, Mapping) else source
    return path if isinstance(path, str) else ""
