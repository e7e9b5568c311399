"""Shapes: B rows, T tokens."""

from __future__ import annotations

import torch

from unlearun.data import Example, Item, collate
from unlearun.data.collate import collate_filler

ITEM = Item("f.json, line 1", "q", "a")
EOS = 9
LONG = Example(4, [1, 2, 3, 5, EOS], 2, True, ITEM)
SHORT = Example(7, [1, 5, EOS], 1, True, ITEM)
CUT = Example(8, [1, 2, 6, 6], 2, False, ITEM)


def test_rows_are_padded_on_the_right_and_labelled_from_their_start():
    batch = collate([LONG, SHORT, CUT], pad_id=0)
    assert batch.input_ids.tolist() == [[1, 2, 3, 5, EOS], [1, 5, EOS, 0, 0], [1, 2, 6, 6, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]
    assert batch.labels.tolist() == [
        [-100, -100, 3, 5, EOS],
        [-100, 5, EOS, -100, -100],
        [-100, -100, 6, 6, -100],
    ]
    assert batch.example_id.tolist() == [4, 7, 8]
    assert batch.ends.tolist() == [True, True, False]


def test_padding_with_eos_masks_no_real_eos_and_labels_no_padding():
    """The trap: a mask by comparing ids with the pad id loses each answer's end."""
    with_eos, with_zero = collate([LONG, SHORT], pad_id=EOS), collate([LONG, SHORT], pad_id=0)
    assert (with_eos.labels == EOS).sum(-1).tolist() == [1, 1]
    assert torch.equal(with_eos.labels, with_zero.labels)
    assert torch.equal(with_eos.attention_mask, with_zero.attention_mask)
    assert torch.equal(with_eos.content_mask, with_zero.content_mask)


def test_a_row_is_the_same_beside_any_other():
    alone, beside = collate([SHORT], 0), collate([LONG, SHORT], 0)
    assert torch.equal(alone.input_ids[0], beside.input_ids[1, :3])
    assert torch.equal(alone.labels[0], beside.labels[1, :3])


def test_step_counts_are_handed_on():
    batch = collate([SHORT], 0, step_tokens=11, step_rows=3)
    assert (batch.token_count, batch.row_count) == (11, 3)
    assert collate([SHORT], 0).step_tokens is None


def test_a_filler_counts_for_nothing_but_knows_its_step():
    batch = collate_filler(LONG, 0, 11, 3)
    assert len(batch) == 1
    assert not batch.mask.any()
    assert not batch.content_mask.any()
    assert batch.example_id.tolist() == [-1]
    assert (batch.token_count, batch.row_count) == (11, 3)
