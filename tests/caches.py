"""Datamodules that share a folder of token ids. Here and not in a test, for a spawned process imports it."""

from __future__ import annotations

from unittest import mock

from conftest import FORGET, RETAIN, make_tokenizer
from torch import distributed

from unlearun.data import Formatter, UnlearningDataModule

CUT = 60  # the first and the last row of FORGET have 61 tokens


def connect(folder, forget=None, **settings):
    """Connect a datamodule that finds every set worth keeping; return it, and how many sets it has tokenised."""
    count = mock.Mock()
    encode = Formatter.encode

    def counted(self, items, where):
        count()
        return encode(self, items, where)

    with mock.patch("unlearun.data.cache.WORTH", 0), mock.patch.object(Formatter, "encode", counted):
        data = UnlearningDataModule(forget or FORGET, RETAIN, cache=folder, **{"max_length": CUT, **settings})
        data.connect(make_tokenizer(), alternate="any")
    return data, count.call_count


def contents(data):
    """Return all that a set is made of."""
    sets = [data.examples("forget"), data.examples("retain"), data.alternates()]
    return [[(e.example_id, list(e.input_ids), e.start, e.ends, e.item, e.kind) for e in rows] for rows in sets]


def share(rank, folder):
    """Connect one after the other, then both at once with a folder that is empty again."""
    found = []
    for turn in range(2):
        if turn == rank:
            found.append(connect(f"{folder}/in turn"))
        distributed.barrier()
    found.append(connect(f"{folder}/at once"))
    return [(contents(data), count) for data, count in found]
