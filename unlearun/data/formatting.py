"""From text to token ids with an exact label boundary: prompt and answer are tokenised apart and joined."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from unlearun.data.examples import Example, TokenTable
from unlearun.data.rows import Item
from unlearun.errors import UnlearunError, all_at_once

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROMPT = "Question: {question}\nAnswer:"
QUESTION = "{question}"
# So many rows are tokenised at once: enough to keep all cores busy, few enough that what a tokenizer makes of them
# beside the ids, some hundred bytes a token, is small. Books count by their characters.
_ROWS, _CHARACTERS = 256, 1_000_000
_MARK = "\u2402answer\u2402"  # stands for the answer while the chat template is asked what follows one


@dataclass(frozen=True)
class Formatter:
    """How questions and answers become token ids.

    Attributes:
        tokenizer: The model's tokenizer.
        max_length: The longest row, in tokens.
        prompt: The plain template, used when there is no chat template; ``{question}`` stands for the question.
        system: A system prompt for the chat template; None leaves the template's own.
        chat: Whether a chat template is used where the tokenizer has one.
        refuse_long: Whether an answer that must be cut is an error.
        shots: Questions with answers that go before each question: earlier turns of a chat, or the plain template
            with each, an empty line behind it.
        continues: Whether an answer goes on where its prompt stops, without a space between.
        chat_values: Further values of the chat template, by name, such as a date.
        question: What is asked instead of a row's question, which ``{question}`` stands for.
        prefill: What the model is made to begin its answer with; it is not labelled.
        given: So many tokens of the answer itself stand in the prompt, but never all of them.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int = 512
    prompt: str = PROMPT
    system: str | None = None
    chat: bool = True
    refuse_long: bool = False
    shots: tuple[tuple[str, str], ...] = ()
    continues: bool = False
    chat_values: tuple[tuple[str, Any], ...] = field(default=(), hash=False)  # they may be lists
    question: str = QUESTION
    prefill: str = ""
    given: int = 0

    @property
    def uses_chat(self) -> bool:
        """Whether prompts are made by the tokenizer's chat template."""
        return self.chat and bool(getattr(self.tokenizer, "chat_template", None))

    @cached_property
    def end_id(self) -> int:
        """The token that ends an answer: what the chat template writes after one, else the tokenizer's eos.

        Raises:
            UnlearunError: The tokenizer has neither.
        """
        if self.uses_chat:
            turns = [*self._turns("?"), {"role": "assistant", "content": _MARK}]
            text = str(self._in_chat(turns))
            after = self._ids(text.rpartition(_MARK)[2].lstrip()) if _MARK in text else []
            if after and self._is_special(after[0]):
                return after[0]
        if self.tokenizer.eos_token_id is None:
            name = getattr(self.tokenizer, "name_or_path", "")
            raise UnlearunError(
                f"the tokenizer {name} has no eos token, so an answer has no end; name another with --model.tokenizer, "
                "or set eos_token in its tokenizer_config.json (in Python: tokenizer.eos_token)"
            )
        return int(self.tokenizer.eos_token_id)

    def prompt_ids(self, question: str) -> list[int]:
        """Return the tokens before the answer, but for those of the answer itself that are given.

        Args:
            question: The question as the row has it.
        """
        return self._prompts([question])[0]

    def answer_ids(self, answer: str) -> list[int]:
        """Return the tokens of an answer, without its end.

        Args:
            answer: The answer as the row has it; after a plain template that ends without one a space goes before it.
        """
        return self._ids(self._as_answer(answer))

    def _prompts(self, questions: Sequence[str]) -> list[list[int]]:
        if not questions:
            return []
        begun = self._ids(self._behind_prompt(self.prefill)) if self.prefill else []
        return [[*ids, *begun] for ids in self._asking([self.question.replace(QUESTION, one) for one in questions])]

    def _asking(self, questions: Sequence[str]) -> list[list[int]]:
        if self.uses_chat:
            turns: Any = [self._turns(question) for question in questions]
            return self._all_ids(self._in_chat(turns, add_generation_prompt=True))
        eos = self.tokenizer.eos_token_id
        gap = "" if self.prompt[-1:].isspace() else " "
        before = "".join(f"{self._in_template(question)}{gap}{answer}\n\n" for question, answer in self.shots)
        rows = self._all_ids([before + self._in_template(question) for question in questions], special=True)
        return [ids[:-1] if len(ids) > 1 and ids[-1] == eos else ids for ids in rows]

    def _in_chat(self, turns: Any, **settings: Any) -> Any:  # noqa: ANN401 - a conversation, or several
        """Fill in the chat template."""
        try:
            return self.tokenizer.apply_chat_template(turns, tokenize=False, **settings, **dict(self.chat_values))
        except Exception as error:  # jinja2's own, and whatever a template calls
            system = " Some know no system prompt: leave system_prompt out." if self.system is not None else ""
            raise UnlearunError(
                f"the tokenizer's chat template cannot be filled in ({type(error).__name__}: {error});{system} Do "
                "without it (chat_template: false), or give what it asks for (chat_template_kwargs)"
            ) from error

    def _in_template(self, question: str) -> str:
        return self.prompt.replace(QUESTION, question)

    def _as_answer(self, answer: str) -> str:
        if not self.prefill:
            return self._behind_prompt(answer)
        return answer if self._brings_a_space or self.prefill[-1:].isspace() else f" {answer}"

    def _behind_prompt(self, text: str) -> str:
        spaced = self.uses_chat or self.continues or self._brings_a_space or self.prompt[-1:].isspace()
        return text if spaced else f" {text}"

    def _give(self, prompt: list[int], answer: list[int]) -> tuple[list[int], list[int]]:
        """Move the tokens of an answer that are given into the prompt; one and its end always stay."""
        given = max(0, min(self.given, len(answer) - 2))
        return [*prompt, *answer[:given]], answer[given:]

    def until_next_question(self, text: str) -> str:
        """Cut off a further question that a model made up behind its answer, as it saw it in the shots.

        Args:
            text: What the model said.
        """
        if not self.shots or self.uses_chat:
            return text
        lead = self.prompt.partition("{question}")[0].strip()
        for stop in ("\n\n", lead):
            text = text.partition(stop)[0] if stop else text
        return text

    @cached_property
    def _brings_a_space(self) -> bool:
        """Whether the tokenizer itself puts a space before every text, as those of Llama 2 and Mistral do."""
        first = self.tokenizer.convert_ids_to_tokens(self._ids("a")[:1])
        return bool(first) and str(first[0]).startswith("\u2581")

    def format(self, item: Item, example_id: int, answer: str | None = None, kind: int = 0) -> tuple[Example, bool]:
        """Turn a question and its answer into token ids.

        Args:
            item: The row.
            example_id: Its number.
            answer: Another answer to the same question; None for the row's own.
            kind: Which answer it is, see `Batch`.

        Returns:
            The example, and whether its answer had to be cut.

        Raises:
            UnlearunError: The prompt leaves no room for one token of the answer.
        """
        prompt, answered = self._give(
            self.prompt_ids(item.question or ""),
            [*self.answer_ids(item.answer if answer is None else answer), self.end_id],
        )
        tokens, cut = self._join(item, prompt, answered)
        return Example(example_id, tokens, len(prompt), not cut, item, kind), cut

    def encode(self, items: Sequence[Item], where: str) -> TokenTable:
        """Make token ids of a whole set.

        A plain text is cut into pieces of at most ``max_length`` tokens, all labelled but the first of each: each
        after the tokenizer's bos where it has one; the last ends with eos, unless that would stand alone.

        Args:
            items: Its rows.
            where: The set, as messages should call it.

        Returns:
            All rows.

        Raises:
            UnlearunError: All rows that cannot be kept, at once.
        """
        table = TokenTable()
        problems: list[str] = []
        end = self.end_id  # without one no row can be kept: that is one problem, not as many as there are rows
        for place, (item, (prompt, answer)) in enumerate(zip(items, self._tokenised(items), strict=True)):
            if item.question is None:
                for piece, ends in self._pieces([*answer, end]):
                    table.add(piece, max(1, min(1 + self.given, len(piece) - 1)), ends, place)
                continue
            prompt, answered = self._give(prompt, [*answer, end])
            try:
                tokens, cut = self._join(item, prompt, answered)
            except UnlearunError as error:
                problems.append(str(error))
            else:
                table.add(tokens, len(prompt), not cut, place)
                table.cuts += cut
        if problems:
            raise all_at_once(problems, where)
        return table

    def format_all(self, items: Sequence[Item], where: str) -> tuple[list[Example], int]:
        """Format a whole set.

        Args:
            items: Its rows.
            where: The set, as messages should call it.

        Returns:
            The examples, and how many answers were cut.

        Raises:
            UnlearunError: All rows that cannot be kept, at once.
        """
        table = self.encode(items, where)
        return table.examples(items), table.cuts

    def _tokenised(self, items: Sequence[Item]) -> Iterator[tuple[list[int], list[int]]]:
        """Yield the prompt of each row, which a plain text has not, and its answer."""
        for block in _blocks(items):
            prompts = iter(self._prompts([item.question for item in block if item.question is not None]))
            texts = [item.answer if item.question is None else self._as_answer(item.answer) for item in block]
            for item, answer in zip(block, self._all_ids(texts), strict=True):
                yield ([] if item.question is None else next(prompts)), answer

    def _join(self, item: Item, prompt: list[int], answer: list[int]) -> tuple[list[int], bool]:
        """Return prompt and answer as one row, and whether the answer had to be cut."""
        tokens = [*prompt, *answer]
        if len(prompt) >= self.max_length:
            raise UnlearunError(
                f"{item.origin}: the prompt has {len(prompt)} tokens and leaves no room for one answer token; "
                f"shorten the question, or raise max_length (now {self.max_length})"
            )
        if not prompt:
            raise UnlearunError(f"{item.origin}: the prompt has no tokens, so nothing predicts the answer")
        cut = len(tokens) > self.max_length
        if cut and self.refuse_long:
            raise UnlearunError(
                f"{item.origin}: prompt and answer have {len(tokens)} tokens, max_length is {self.max_length}; "
                "raise it, or cut such answers with truncation: answer"
            )
        return tokens[: self.max_length], cut

    def _pieces(self, tokens: list[int]) -> Iterator[tuple[list[int], bool]]:
        """Yield the pieces of a plain text and its end, and whether it ends there."""
        size = self.max_length - len(self._lead)
        starts = list(range(0, len(tokens), size))
        if len(starts) > 1 and len(tokens) - starts[-1] == 1:
            starts.pop()  # an eos alone has no text before it that predicts it
        for start in starts:
            yield self._lead + tokens[start : start + size], start + size >= len(tokens)

    @cached_property
    def _lead(self) -> list[int]:
        """The tokenizer's bos, where it has one."""
        (with_bos,) = self._all_ids([""], special=True)
        return with_bos[:1] if with_bos and with_bos[0] == self.tokenizer.bos_token_id else []

    def _turns(self, question: str) -> list[dict[str, str]]:
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        shots = [
            turn
            for asked, answer in self.shots
            for turn in ({"role": "user", "content": asked}, {"role": "assistant", "content": answer})
        ]
        return [*system, *shots, {"role": "user", "content": question}]

    def _is_special(self, token: int) -> bool:
        added = self.tokenizer.added_tokens_decoder.get(token)  # Phi-3's <|end|> is special only here
        return token in self.tokenizer.all_special_ids or (added is not None and added.special)

    def _ids(self, text: str) -> list[int]:
        return self._all_ids([text])[0]

    def _all_ids(self, texts: Sequence[str], special: bool = False) -> list[list[int]]:
        """Return the tokens of each text: a tokenizer gives the same for many at once, in less time."""
        found = self.tokenizer(list(texts), add_special_tokens=special, return_attention_mask=False)
        rows: list[list[int]] = found["input_ids"]
        return rows


def _blocks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Cut rows into blocks that are tokenised at once."""
    start = characters = 0
    for stop, item in enumerate(items, start=1):
        characters += len(item.question or "") + len(item.answer)
        if stop - start == _ROWS or characters > _CHARACTERS or stop == len(items):
            yield items[start:stop]
            start, characters = stop, 0
