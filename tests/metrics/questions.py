"""Questions whose answers have known numbers, the batches that are made of them, and how processes share these.

Shapes: n tokens of an answer.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any, NamedTuple, TypeAlias

import torch
from metrics.references import Answer, Question

from unlearun.data import Batch
from unlearun.metrics import SetTraits
from unlearun.ops import TokenStats, token_stats

# ---- questions --------------------------------------------------------------------------------------------------

VOCABULARY = 7
WORDS = ["the", "cat", "sat", "on", "red", "mat", "by", "sea", "in", "sun"]  # too short for a stemmer to change


def make_answer(draw: random.Random, length: int, ends: bool = True) -> Answer:
    """Scores that bfloat16 holds exactly; every other token is a hit, more or less."""
    rows = torch.tensor([[draw.gauss(0, 2) for _ in range(VOCABULARY)] for _ in range(length)]).bfloat16().tolist()
    labels = [row.index(max(row)) if draw.random() < 0.5 else draw.randrange(VOCABULARY) for row in rows]
    return Answer(rows, labels, ends, " ".join(draw.choices(WORDS, k=draw.randint(3, 7))))


def make_question(draw: random.Random, number: int, paraphrase: bool, wrong: int, length: int, ends: bool) -> Question:
    own = make_answer(draw, length, ends)
    others = [make_answer(draw, draw.randint(1, 6)) for _ in range(wrong)]
    return Question(
        number,
        own,
        make_answer(draw, draw.randint(2, 6)) if paraphrase else None,
        others,
        draw.choice([own.text, f"the sun {own.text} .", " ".join(draw.choices(WORDS, k=6))]),
        draw.choice(["Cat", "SEA"]),
        draw.random(),
        draw.uniform(-9, 0),
    )


def make_sets() -> dict[str, list[Question]]:
    """Five questions a set, an odd number for two processes, their ids in no order.

    Among them are an answer of one token that was cut, an empty one that is eos alone, questions without other
    answers and without a short one, and one of which the model says nothing.
    """
    draw = random.Random(3)
    ids, lengths, ends = (4, 0, 9, 2, 7), (1, 3, 6, 1, 8), (False, True, False, True, True)
    rows = list(zip(ids, lengths, ends, strict=True))
    forget = [make_question(draw, i, n > 1, k, n, e) for k, (i, n, e) in zip((3, 1, 2, 0, 5), rows, strict=True)]
    forget[2] = replace(forget[2], short=None, generation="")
    return {
        "forget": forget,
        "holdout": [make_question(draw, i, False, 0, n, e) for i, n, e in rows],
        "retain": [make_question(draw, i, True, 2, n, e) for i, n, e in rows],
        "facts": [make_question(draw, i, False, 3, n, e) for i, n, e in rows],
    }


SETS = make_sets()
TRAITS = {
    "forget": SetTraits(paraphrase=True, wrong=True, short=True),
    "holdout": SetTraits(short=True),
    "retain": SetTraits(paraphrase=True, wrong=True, short=True),
    "facts": SetTraits(wrong=True, short=True),
}


# ---- batches ----------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """One answer: `TokenStats` of ``(n,)``, and what a batch says of it."""

    stats: TokenStats
    id: int = 0
    kind: int = 0
    ends: bool = False
    text: str = ""


def lay_out(rows: Sequence[Row], side: str = "right", junk: float = 0.0) -> tuple[TokenStats, Batch]:
    """Put rows behind prompts of one to three tokens and pad them on a side.

    Args:
        rows: At least one.
        side: Where padding stands.
        junk: What statistics are, and whether hits are, where there is no label.
    """
    prompts = [1 + i % 3 for i in range(len(rows))]
    width = max(prompt + len(row.stats.logprobs) for prompt, row in zip(prompts, rows, strict=True)) + 1
    labels = torch.full((len(rows), width), -100)
    attention = torch.zeros_like(labels)
    dtype = rows[0].stats.logprobs.dtype
    values = [torch.full(labels.shape, junk, dtype=torch.bool if name == "hits" else dtype) for name in STATS]
    for i, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        length = prompt + len(row.stats.logprobs)
        start = width - length if side == "left" else 0
        attention[i, start : start + length] = 1
        labels[i, start + prompt : start + length] = 5
        for name, value in zip(STATS, values, strict=True):
            given = getattr(row.stats, name)
            value[i, start + prompt : start + length] = torch.zeros(1) if given is None else given
    batch = Batch(
        torch.full_like(labels, 5 if not junk else 6),
        attention,
        labels,
        example_id=torch.tensor([row.id for row in rows]),
        ends=torch.tensor([row.ends for row in rows]),
        kind=torch.tensor([row.kind for row in rows]),
        texts=tuple(row.text for row in rows),
    )
    return TokenStats(*values), batch


STATS = ("logprobs", "hits", "mean", "deviation")
FILLER = Row(TokenStats(torch.zeros(0, dtype=torch.float64), torch.zeros(0)), id=-1)


def by_hand(*logprobs: Sequence[float], hits: Sequence[Sequence[int]] | None = None, **columns: Sequence[Any]) -> Any:
    """Lay out rows of given log-probabilities; hits are those of -1 and above unless given.

    Args:
        logprobs: For each row its tokens'.
        hits: Likewise.
        columns: ``id``, by default the place of the row, ``kind``, ``ends``, ``text``.
    """
    columns = {"id": range(len(logprobs)), **columns}
    rows = []
    for i, values in enumerate(logprobs):
        hit = [value >= -1 for value in values] if hits is None else hits[i]
        stats = TokenStats(torch.tensor(values, dtype=torch.float64), torch.tensor(hit, dtype=torch.bool))
        rows.append(Row(stats, **{name: column[i] for name, column in columns.items()}))
    return lay_out(rows)


def make_batch(
    questions: Sequence[Question], dtype: torch.dtype = torch.float64, **layout: Any
) -> tuple[TokenStats, Batch]:
    """Reduce the logits of all answers to statistics, and sort the answers by length as the datamodule does.

    Args:
        questions: None make a filler: one row without labels.
        dtype: Of the logits.
        layout: See `lay_out`.
    """
    rows = []
    for q in questions:
        others = [] if q.paraphrase is None else [(1, q.paraphrase)]
        for kind, answer in [(0, q.own), *others, *enumerate(q.wrong, 2)]:
            stats = token_stats(torch.tensor(answer.scores, dtype=dtype), torch.tensor(answer.labels))
            rows.append(Row(stats, q.id, kind, answer.ends, answer.text))
    return lay_out(sorted(rows, key=lambda row: len(row.stats.logprobs)) or [FILLER], **layout)


# ---- dealt out --------------------------------------------------------------------------------------------------

Share: TypeAlias = "list[tuple[str, list[Question]]]"

# For each process its batches, of positions in a set; an empty one is a filler.
DEALS: dict[str, tuple[list[list[int]], list[list[int]]]] = {
    "five rows on two processes": ([[0, 2], [4]], [[1, 3], []]),
    "rows repeated in a batch, by a process and by both": ([[0, 2, 0], [4]], [[1, 3], [3, 0]]),
    "one process has fillers only": ([[0, 1, 2], [3, 4]], [[], []]),
    "one process has no batch": ([[3, 1], [2, 0, 4]], []),
    "the same single row on both": ([[1]], [[1]]),
    "no row at all": ([[]], []),
}


def deal(name: str, sets: Sequence[str]) -> tuple[Share, Share]:
    """Return the batches of both processes; of every other set they change places."""
    shares: tuple[Share, Share] = ([], [])
    for i, title in enumerate(sets):
        for rank, batches in enumerate(DEALS[name]):
            share = shares[(rank + i) % 2]
            share += [(title, [SETS[title][at] for at in positions]) for positions in batches]
    return shares


def distinct(name: str, sets: Sequence[str]) -> dict[str, list[Question]]:
    """Return the questions of a deal, each once."""
    seen = {at for batches in DEALS[name] for positions in batches for at in positions}
    return {title: [SETS[title][at] for at in sorted(seen)] for title in sets}


# Batches for one process, the last of them smaller, of all sets in turn.
def in_batches(sets: Sequence[str]) -> Share:
    by_set = [[(title, SETS[title][i : i + 2]) for i in (0, 2, 4)] for title in sets]
    return [batch for turn in zip_longest(*by_set) for batch in turn]
