"""Several answers of one question as one sequence, in which every distinct prefix stands once.

Shapes: B rows, T tokens, G questions, P nodes of the largest tree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from unlearun.data import Batch

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class PrefixTree(NamedTuple):
    """The rows of a batch, packed: each distinct prefix is a node, its parent the prefix without the last token.

    Attributes:
        input_ids: ``(G, P)`` the nodes' tokens, 0 in the padding.
        position_ids: ``(G, P)`` how deep each node stands, from 0.
        mask: ``(G, 1, P, P)`` what is added to the scores of attention: 0 from a node to its ancestors and itself,
            the lowest number elsewhere; a node of the padding sees itself.
        nodes: ``(B, T)`` which of the flattened ``(G * P)`` nodes each token is; 0 in the padding.
    """

    input_ids: Tensor
    position_ids: Tensor
    mask: Tensor
    nodes: Tensor


def has_siblings(batch: Batch) -> bool:
    """Say whether some question has several answers."""
    return len(_questions(batch)) < len(batch)


def prefix_tree(batch: Batch, dtype: torch.dtype) -> PrefixTree:
    """Pack the rows of each question, which are those of one example id.

    Args:
        batch: Rows, padded on either side. Without example ids, and with -1, a row stands alone.
        dtype: Of the mask.

    Returns:
        The trees, padded to the largest.
    """
    real = batch.attention_mask.bool().cpu()
    rows = [ids[kept].tolist() for ids, kept in zip(batch.input_ids.cpu(), real, strict=True)]
    packed = [_pack({row: rows[row] for row in question}) for question in _questions(batch)]
    size = max(len(tree.tokens) for tree in packed)
    input_ids, depths = torch.zeros(2, len(packed), size, dtype=torch.long)
    ends = torch.arange(1, size + 1).repeat(len(packed), 1)
    nodes = torch.zeros_like(real, dtype=torch.long)
    for i, tree in enumerate(packed):
        for filled, values in zip((input_ids, depths, ends), tree[:3], strict=True):
            filled[i, : len(values)] = torch.tensor(values)
        for row, path in tree.paths.items():
            nodes[row, real[row]] = torch.tensor(path, dtype=torch.long) + i * size
    input_ids, depths, ends, nodes = (t.to(batch.input_ids.device) for t in (input_ids, depths, ends, nodes))
    return PrefixTree(input_ids, depths, _mask(ends, dtype), nodes)


def fits(tree: PrefixTree, config: PretrainedConfig) -> bool:
    """Say whether every token may see all of its row, and no buffer of the architecture is too short.

    Args:
        tree: Of the rows to run.
        config: The text model's.
    """
    windowed = getattr(config, "use_sliding_window", None) is not False
    for_depth = [getattr(config, "sliding_window", None) if windowed else None]
    for_depth.append(getattr(config, "attention_chunk_size", None))
    # GPT-Neo's window and GPT-J's buffers go by the place in the sequence, whatever the position ids say.
    for_size = [getattr(config, "window_size", None), getattr(config, "max_position_embeddings", None)]
    depth, size = int(tree.position_ids.max()) + 1, tree.input_ids.shape[1]
    return all(depth <= n for n in for_depth if n is not None) and all(size <= n for n in for_size if n is not None)


def two_branches(batch: Batch, vocabulary: int) -> Batch:
    """Make a small question with two answers, to try an architecture on.

    Args:
        batch: Whose tokens it gets; on those of no text half precision is too noisy to tell anything.
        vocabulary: Token ids are below it.

    Returns:
        Rows of 11 and 9 tokens, of which 4 are shared.
    """
    text = batch.input_ids[batch.attention_mask.bool()]
    text = text[torch.arange(16, device=text.device) % len(text)]
    rows = torch.stack([text[:11], torch.cat([text[:4], text[11:16], text[:2]])])
    rows[1, 4] = (rows[0, 4] + 1) % vocabulary
    mask = torch.ones_like(rows)
    mask[1, 9:] = 0
    return Batch(rows, mask, rows, example_id=torch.zeros(2, dtype=torch.long))


def _questions(batch: Batch) -> list[list[int]]:
    """Return the rows of each question."""
    found: dict[int, list[int]] = {}
    ids = [-1] * len(batch) if batch.example_id is None else batch.example_id.tolist()
    for row, example_id in enumerate(ids):
        found.setdefault(example_id if example_id >= 0 else -1 - row, []).append(row)
    return list(found.values())


def _mask(ends: Tensor, dtype: torch.dtype) -> Tensor:
    """Let each node see those before it whose end lies behind it: its ancestors. ``(G, P)`` to ``(G, 1, P, P)``."""
    place = torch.arange(ends.shape[1], device=ends.device)
    seen = (place <= place.unsqueeze(-1)) & (place.unsqueeze(-1) < ends.unsqueeze(1))
    mask = torch.zeros(seen.shape, dtype=dtype, device=ends.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min).unsqueeze(1)


class _Packed(NamedTuple):
    """One tree in preorder, so that the descendants of a node are those from behind it up to its end."""

    tokens: list[int]
    depths: list[int]
    ends: list[int]
    paths: dict[int, list[int]]


def _pack(rows: dict[int, list[int]]) -> _Packed:
    tree = _Packed([], [], [], {})
    before: list[int] = []
    path: list[int] = []
    for row, tokens in sorted(rows.items(), key=lambda item: item[1]):  # sorted, each shares most with the last
        shared = min(len(before), len(tokens))
        shared = next((i for i in range(shared) if before[i] != tokens[i]), shared)
        path = path[:shared] + list(range(len(tree.tokens), len(tree.tokens) + len(tokens) - shared))
        tree.tokens.extend(tokens[shared:])
        tree.depths.extend(range(shared, len(tokens)))
        tree.ends.extend([0] * (len(tokens) - shared))
        for node in path:
            tree.ends[node] = len(tree.tokens)
        tree.paths[row], before = path, tokens
    return tree
