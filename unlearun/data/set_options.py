"""How the rows of a set are read and asked: as the datamodule says of all sets, or as its source says of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from unlearun.data.formatting import PROMPT, QUESTION, Formatter
from unlearun.data.rows import Keys
from unlearun.data.sources import OPTIONS, Source
from unlearun.errors import UnlearunError, shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


# What the call that fills in a template takes itself.
RESERVED = (
    *("conversation", "messages", "tools", "documents", "chat_template", "add_generation_prompt"),
    *("continue_final_message", "tokenize", "padding", "truncation", "max_length", "return_tensors", "return_dict"),
    *("return_assistant_tokens_mask", "tokenizer_kwargs"),
)
PLACE = re.compile(r"\{[A-Za-z_]\w*\}")
NOT_CONTINUED = {"prompt_template", "chat_template", "question_template", "prefill", "shots"}


@dataclass(frozen=True)
class SetOptions:
    """What is done with the rows of a set.

    Attributes:
        keys: Which key of a row holds what.
        min_characters: Plain text of fewer is left out.
        joined: Whether plain texts are joined to one before it is cut into rows.
        continues: Whether an answer goes on where its prompt stops, without a template or a space between.
        prompt_template: What goes before an answer where there is no chat template.
        system_prompt: A system prompt for the chat template; None leaves the template's own.
        chat_template: Whether the tokenizer's chat template is used, if it has one.
        chat_template_kwargs: Further values of the chat template, by name.
        question_template: What is asked; ``{question}`` stands for the row's question.
        prefill: What the model is made to begin its answer with.
        given_tokens: So many tokens of the answer stand in the prompt.
        shots: Questions with answers that go before each question; None for none.
        max_length: The longest row in tokens; None for that of all sets.
        max_new_tokens: At most so many tokens of an answer are generated.
    """

    keys: Keys = field(default_factory=Keys)
    min_characters: int = 0
    joined: bool = False
    continues: bool = False
    prompt_template: str = PROMPT
    system_prompt: str | None = None
    chat_template: bool = True
    chat_template_kwargs: Mapping[str, Any] | None = None
    question_template: str = QUESTION
    prefill: str = ""
    given_tokens: int = 0
    shots: Source | None = None
    max_length: int | None = None
    max_new_tokens: int = 48

    def __post_init__(self) -> None:
        """Check what types cannot say."""
        for name in ("prompt_template", "question_template"):
            if QUESTION not in getattr(self, name):
                raise UnlearunError(f"{name} is {getattr(self, name)!r}; it must hold {{question}}")

    def unfilled(self) -> list[str]:
        """Say what stands in the templates as if it were filled in, and is not.

        >>> SetOptions(prompt_template="{context} {question}").unfilled()
        ['prompt_template has {context}, which nothing fills in; {question} alone is']
        """
        return [
            f"{name} has {place}, which nothing fills in; {QUESTION} alone is"
            for name in ("prompt_template", "question_template")
            for place in dict.fromkeys(PLACE.findall(getattr(self, name)))
            if place != QUESTION
        ]

    def formatter(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        refuse_long: bool,
        shots: tuple[tuple[str, str], ...] = (),
    ) -> Formatter:
        """Return what makes token ids of the rows.

        Args:
            tokenizer: The model's.
            max_length: The longest row, in tokens, where the set does not say so itself.
            refuse_long: Whether an answer that must be cut is an error.
            shots: Questions with answers that go before each question.
        """
        return Formatter(
            tokenizer,
            self.max_length or max_length,
            QUESTION if self.continues else self.prompt_template,
            self.system_prompt,
            self.chat_template and not self.continues,
            refuse_long,
            shots,
            self.continues,
            tuple((self.chat_template_kwargs or {}).items()),
            self.question_template,
            self.prefill,
            self.given_tokens,
        )


def split_source(source: Source, common: SetOptions, where: str) -> tuple[Source, SetOptions]:
    """Take a source's own options out of it.

    Args:
        source: Where rows come from; a mapping may say how they are read and asked, too.
        common: What holds for a source that says nothing.
        where: The set, as messages should call it.

    Returns:
        The source without its options, and the set's options.

    Raises:
        UnlearunError: An option has a value that it cannot have.

    >>> split_source({"path": "a.json", "max_new_tokens": 8}, SetOptions(), "the forget set")[1].max_new_tokens
    8
    """
    if not isinstance(source, Mapping) or hasattr(source, "num_rows"):
        return source, common
    named = {key: _as_meant(key, value) for key, value in source.items() if key in OPTIONS}
    if not named:
        return source, common
    # null, where it is no value of the option, takes back what an earlier config said.
    own = {key: value for key, value in named.items() if value is not None or type(None) in OPTIONS[key][1]}
    for key, value in own.items():
        _check(key, value, where)
    keys: dict[str, Any] = {key.removesuffix("_key"): value for key, value in own.items() if key.endswith("_key")}
    others: dict[str, Any] = {key: value for key, value in own.items() if not key.endswith("_key")}
    try:
        options = replace(common, keys=replace(common.keys, **keys), **others)
    except UnlearunError as error:
        raise UnlearunError(f"{where}: {error}") from error
    if options.continues and own.keys() & NOT_CONTINUED:
        raise UnlearunError(
            f"{where}: continues: true takes the prompt as it is; leave out templates, prefill and shots"
        )
    return {key: value for key, value in source.items() if key not in named}, options


def _as_meant(key: str, value: object) -> object:
    """Take a number or a truth value that a command line gives as text for what it is."""
    _, kinds = OPTIONS[key]
    if isinstance(value, str) and str not in kinds:
        if bool in kinds and value in ("true", "false"):
            return value == "true"
        if int in kinds and value.isdecimal():
            return int(value)
    return value


def _check(key: str, value: object, where: str) -> None:
    expected, kinds = OPTIONS[key]
    right = isinstance(value, kinds) and not (isinstance(value, bool) and bool not in kinds)
    if not right or (isinstance(value, int) and not isinstance(value, bool) and value < 1):
        hint = ""
        if isinstance(value, Mapping) and str in kinds:  # as YAML reads a text with a colon that has no quotes
            hint = ", in quotes; on a command line it cannot hold a colon, so put it into a file: --config FILE"
        raise UnlearunError(f"{where}: {key} is {shown(value)}; expected {expected}{hint}")
    if key == "chat_template_kwargs" and isinstance(value, Mapping):
        taken = [name for name in value if not isinstance(name, str) or name in RESERVED]
        if taken:
            raise UnlearunError(
                f"{where}: chat_template_kwargs has {taken[0]!r}, which is no value that a template may be given; name "
                "those that the template itself reads, such as date_string"
            )
