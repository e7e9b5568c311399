"""Batches for evaluation: the same ones, whatever the number of processes, dealt out among them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from unlearun.data.answers import all_answers, answer_text
from unlearun.data.batch import Batch
from unlearun.data.collate import collate, collate_filler
from unlearun.data.examples import Example
from unlearun.data.formatting import Formatter

FILLER = -1


class EvalBatches(Dataset[Batch]):
    """The rows of a set with all answers to their questions, those of about the same length together.

    Args:
        examples: The rows, at least one.
        formatter: What made them.
        pad_id: What stands in padding.
        batch_size: At most so many questions a batch; each brings all its answers as rows.

    Attributes:
        left_out: How many paraphrased and wrong answers are too long to be there.
    """

    def __init__(self, examples: Sequence[Example], formatter: Formatter, pad_id: int, batch_size: int) -> None:
        self.formatter = formatter
        self.pad_id = pad_id
        formatted = [all_answers(formatter, example) for example in examples]
        self.questions = [answers for answers, _ in formatted]
        self.left_out = sum(count for _, count in formatted)
        self.questions.sort(key=lambda answers: sum(len(answer.input_ids) for answer in answers))
        count = -(-len(self.questions) // batch_size)
        ends = [len(self.questions) * i // count for i in range(count + 1)]
        self.spans = list(pairwise(ends))

    def __len__(self) -> int:
        return len(self.spans)

    def __getitem__(self, index: int) -> Batch:
        if index == FILLER:
            return collate_filler(self.questions[0][0], self.pad_id, None, None)
        first, last = self.spans[index]
        rows = [answer for answers in self.questions[first:last] for answer in answers]
        batch = collate(rows, self.pad_id)
        batch.texts = tuple(answer_text(self.formatter, row) for row in rows)
        return batch


class DealtBatches(DistributedSampler[int]):
    """Deals batches out in turn, and a filler where they do not go round: all processes run equally many.

    It is a DistributedSampler so that Lightning leaves it alone.

    Args:
        count: How many batches there are.
        rank: This process.
        world_size: How many processes there are.
    """

    def __init__(self, count: int, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(range(count), num_replicas=world_size, rank=rank, shuffle=False)  # type: ignore[arg-type]
        self.count = count

    def __len__(self) -> int:
        """Return the number of batches of this process, the same on all."""
        return -(-self.count // self.num_replicas)

    def __iter__(self) -> Iterator[int]:
        for turn in range(len(self)):
            index = turn * self.num_replicas + self.rank
            yield index if index < self.count else FILLER
