"""Rows of a batch packed into few sequences, in which every distinct prefix of their rows stands once.

Shapes: B rows, T tokens, G groups of rows, P nodes of the largest group, D width.
"""

from __future__ import annotations

import heapq
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from unlearun.data import Batch

if TYPE_CHECKING:
    from transformers import PretrainedConfig

SAVING = 0.05  # what packing must save of the cost of rows to be worth its bookkeeping
KINSHIPS = (0.1, 0.2, 0.4)  # parts that neighbours must share to stay together, each tried


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


def cost(sequences: int, length: int, width: int) -> int:
    """Estimate what it takes to run sequences of one length, in units that only compare.

    A layer multiplies about 12 D² numbers a token, and 2 D for each token that attention looks at, which goes about
    half as fast.

    Args:
        sequences: How many, padding included.
        length: Of each, in tokens.
        width: D.
    """
    return sequences * length * (3 * width + length)


def fits(depth: int, size: int, config: PretrainedConfig) -> bool:
    """Say whether every token may see all of its row, and no buffer of the architecture is too short.

    Args:
        depth: Of the longest row, in tokens.
        size: P.
        config: The text model's.
    """
    windowed = getattr(config, "use_sliding_window", None) is not False
    for_depth = [getattr(config, "sliding_window", None) if windowed else None]
    for_depth.append(getattr(config, "attention_chunk_size", None))
    # GPT-Neo's window and GPT-J's buffers go by the place in the sequence, whatever the position ids say.
    for_size = [getattr(config, "window_size", None), getattr(config, "max_position_embeddings", None)]
    return all(depth <= n for n in for_depth if n is not None) and all(size <= n for n in for_size if n is not None)


def deal(rows: list[list[int]], plain_length: int, config: PretrainedConfig) -> list[list[int]] | None:
    """Deal rows into groups to pack, of about equal size, the number that costs least.

    Rows that share much, as the answers of one question do, come into the same group; what all rows share, as a
    system prompt, stands once in each.

    Args:
        rows: The tokens of each, without padding.
        plain_length: T, to which they would be padded.
        config: The text model's.

    Returns:
        The numbers of the rows of each group, or None where packing saves too little.
    """
    order = sorted(range(len(rows)), key=rows.__getitem__)
    shared = [_shared(rows[i], rows[j]) for i, j in pairwise(order)]
    everywhere = min([*shared, *map(len, rows)])  # tokens that all rows begin with
    best, depth = None, max(map(len, rows))
    least = (1 - SAVING) * cost(len(rows), plain_length, config.hidden_size)
    for kinship in KINSHIPS:
        clusters, sizes = _clusters(rows, order, shared, everywhere, kinship)
        for count in range(1, len(clusters) + 1):
            groups, largest = _spread_evenly(sizes, count)
            size = everywhere + largest
            estimate = cost(count, size, config.hidden_size)
            if estimate < least and fits(depth, size, config):
                best, least = [[row for i in group for row in clusters[i]] for group in groups], estimate
    return best


def prefix_tree(batch: Batch, groups: list[list[int]], dtype: torch.dtype) -> PrefixTree:
    """Pack the rows of each group.

    Args:
        batch: Rows, padded on either side.
        groups: The numbers of the rows of each; every row is in one.
        dtype: Of the mask.

    Returns:
        The trees, padded to the largest.
    """
    real = batch.attention_mask.bool().cpu()
    rows = token_rows(batch)
    packed = [_pack({row: rows[row] for row in group}) for group in groups]
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


def token_rows(batch: Batch) -> list[list[int]]:
    """Return the tokens of each row, without padding."""
    real = batch.attention_mask.bool().cpu()
    return [ids[kept].tolist() for ids, kept in zip(batch.input_ids.cpu(), real, strict=True)]


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
    return Batch(rows, mask, rows)


def _shared(one: list[int], other: list[int]) -> int:
    """Return how many tokens two rows begin with alike."""
    most = min(len(one), len(other))
    return next((i for i in range(most) if one[i] != other[i]), most)


def _clusters(
    rows: list[list[int]], order: list[int], shared: list[int], everywhere: int, kinship: float
) -> tuple[list[list[int]], list[int]]:
    """Cut sorted rows where neighbours share less than a part of the shorter one, all without the common beginning.

    Returns:
        The numbers of the rows of each cluster, and how many nodes it has below the common beginning.
    """
    clusters, sizes = [[order[0]]], [len(rows[order[0]]) - everywhere]
    for (before, row), prefix in zip(pairwise(order), shared, strict=True):
        if prefix - everywhere >= kinship * (min(len(rows[before]), len(rows[row])) - everywhere):
            clusters[-1].append(row)
            sizes[-1] += len(rows[row]) - prefix
        else:
            clusters.append([row])
            sizes.append(len(rows[row]) - everywhere)
    return clusters, sizes


def _spread_evenly(sizes: list[int], count: int) -> tuple[list[list[int]], int]:
    """Deal things into at most ``count`` groups, the largest first, each to the least group so far.

    Returns:
        The numbers of the things of each group, and the size of the largest.
    """
    groups: list[list[int]] = [[] for _ in range(count)]
    loads = [(0, i) for i in range(count)]
    for thing in sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True):
        load, i = loads[0]
        groups[i].append(thing)
        heapq.heapreplace(loads, (load + sizes[thing], i))
    return [group for group in groups if group], max(loads)[0]


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
        shared, size = _shared(before, tokens), len(tree.tokens)
        for node in path[shared:]:
            tree.ends[node] = size
        path = path[:shared] + list(range(size, size + len(tokens) - shared))
        tree.tokens.extend(tokens[shared:])
        tree.depths.extend(range(shared, len(tokens)))
        tree.ends.extend([0] * (len(tokens) - shared))
        tree.paths[row], before = path, tokens
    for node in path:
        tree.ends[node] = len(tree.tokens)
    return tree
