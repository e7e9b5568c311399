"""Shapes: B rows, T tokens."""

from __future__ import annotations

import torch
from conftest import random_batch

from unlearun.data import Batch

LABELS = torch.tensor(
    [
        [-100, -100, 3, 4, 9],  # ends with eos
        [-100, 3, 4, -100, -100],  # cut, then padding
        [-100, 9, -100, -100, -100],  # eos alone
        [-100, -100, -100, -100, -100],  # a filler
    ]
)
ENDS = torch.tensor([True, False, True, False])


def make() -> Batch:
    return Batch(torch.zeros_like(LABELS), torch.ones_like(LABELS), LABELS.clone(), torch.arange(4), ends=ENDS.clone())


def test_mask_is_where_labels_are():
    assert make().mask.sum(-1).tolist() == [3, 2, 1, 0]
    assert torch.equal(make().mask, LABELS != -100)


def test_content_mask_leaves_out_the_last_label_of_rows_that_end():
    expected = [
        [False, False, True, True, False],
        [False, True, True, False, False],
        [False] * 5,
        [False] * 5,
    ]
    assert make().content_mask.tolist() == expected


def test_without_ends_every_label_is_content():
    batch = random_batch()
    assert batch.ends is None
    assert torch.equal(batch.content_mask, batch.mask)


def test_a_batch_made_by_hand_counts_its_own_tokens_and_rows():
    """3 + 2 + 1 labels in three rows; the row without labels is none."""
    assert (make().token_count, make().row_count, len(make())) == (6, 3, 4)


def test_the_counts_of_the_step_stand_before_its_own():
    batch = make()
    batch.step_tokens, batch.step_rows = 40, 0
    assert (batch.token_count, batch.row_count) == (40, 0)


def test_the_first_token_is_never_labelled_for_nothing_predicts_it():
    batch = Batch(torch.zeros(1, 3), torch.ones(1, 3), torch.tensor([[1, 2, 3]]))
    assert batch.mask.tolist() == [[False, True, True]]
    assert batch.token_count == 2


def test_to_moves_all_tensors_and_keeps_the_rest():
    batch = make()
    batch.step_tokens, batch.step_rows, batch.alternate = 40, 5, make()
    moved = batch.to("meta")
    for part in (moved, moved.alternate):
        tensors = (part.input_ids, part.attention_mask, part.labels, part.example_id, part.ends)
        assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert (moved.step_tokens, moved.step_rows) == (40, 5)
    assert moved.alternate.step_tokens is None
    assert batch.input_ids.device.type == "cpu"
