"""What a policy gives when FSDP2 shards it over two processes. Here for a spawned process to import."""

from __future__ import annotations

import torch
from conftest import make_llama, random_batch
from torch.distributed.device_mesh import init_device_mesh

from unlearun.models import OriginalWeights, Policy, find_layers, shard
from unlearun.models.sharding import whole

LAYER = 2


def make_policy(tied: bool) -> Policy:
    """A model of four layers; embeddings and head are one group with the root, whether tied or not."""
    model = make_llama(layers=4).double()
    if tied:
        model.lm_head.weight = model.model.embed_tokens.weight
    return Policy(model)


def spread(policy: Policy) -> Policy:
    """Shard it over both processes."""
    return shard(policy, init_device_mesh("cpu", (2,)))


def step(policy: Policy, want: str, rank: int) -> dict[str, torch.Tensor]:
    """Run two sets, each forward and backward by itself, as a training step does; return values and gradients."""
    layer = LAYER if want == "hidden" else None
    found: dict[str, torch.Tensor] = {}
    for name, seed in (("forget", 1), ("retain", 5)):
        values = policy(random_batch(seed=seed + rank), want, layer)
        found[name] = values.detach().clone()
        values.pow(2).sum().backward()
    trained = [(name, weight) for name, weight in policy.named_parameters() if weight.grad is not None]
    found |= {name: whole(weight.grad).clone() for name, weight in trained}
    return found


def train(rank: int, want: str, tied: bool) -> dict[str, torch.Tensor]:
    """Make one step with a sharded policy."""
    return step(spread(make_policy(tied)), want, rank)


def steer(rank: int) -> dict[str, torch.Tensor]:
    """Compare layer 2 with its start, when one projection of layer 1 is trained and all below is run once."""
    policy = make_policy(tied=False).requires_grad_(False)
    projection = find_layers(policy.model).layers[1].mlp.down_proj.requires_grad_(True)
    spread(policy)
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
