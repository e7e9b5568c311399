"""What a policy gives when FSDP2 shards it over two processes. Here for a spawned process to import."""

from __future__ import annotations

from typing import Any

import torch
from conftest import make_llama, random_batch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from unlearun.models import OriginalWeights, Policy, find_layers

LAYER = 2


def make_policy(tied: bool) -> Policy:
    """A model of four layers; embeddings and head are one group with the root, whether tied or not."""
    model = make_llama(layers=4).double()
    if tied:
        model.lm_head.weight = model.model.embed_tokens.weight
    return Policy(model)


def shard(policy: Policy) -> Policy:
    """Shard each layer by itself and all the rest together."""
    mesh = init_device_mesh("cpu", (2,))
    for layer in find_layers(policy.model).layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(policy, mesh=mesh)


def whole(tensor: Any) -> torch.Tensor:
    """Return all of a tensor that may be sharded."""
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().clone()


def step(policy: Policy, want: str, rank: int) -> dict[str, torch.Tensor]:
    """Run two sets, each forward and backward by itself, as a training step does; return values and gradients."""
    layer = LAYER if want == "hidden" else None
    found: dict[str, torch.Tensor] = {}
    for name, seed in (("forget", 1), ("retain", 5)):
        values = policy(random_batch(seed=seed + rank), want, layer)
        found[name] = values.detach().clone()
        values.pow(2).sum().backward()
    found |= {name: whole(weight.grad) for name, weight in policy.named_parameters() if weight.grad is not None}
    return found


def train(rank: int, want: str, tied: bool) -> dict[str, torch.Tensor]:
    """Make one step with a sharded policy."""
    return step(shard(make_policy(tied)), want, rank)


def steer(rank: int) -> dict[str, torch.Tensor]:
    """Compare layer 2 with its start, when one projection of layer 1 is trained and all below is run once."""
    policy = make_policy(tied=False).requires_grad_(False)
    projection = find_layers(policy.model).layers[1].mlp.down_proj.requires_grad_(True)
    shard(policy)
    reference = OriginalWeights(policy)
    batch = random_batch(seed=1 + rank)
    start = policy(batch, "hidden", LAYER).detach().clone()
    with torch.no_grad():
        projection.weight.mul_(1.5)
    with policy.sharing_frozen_layers():
        frozen = reference.hidden(batch, (LAYER,))[0]
        hidden = policy(batch, "hidden", LAYER)
    (hidden - frozen).pow(2).sum().backward()
    return {"start": start, "frozen": frozen, "hidden": hidden.detach(), "gradient": whole(projection.weight.grad)}
