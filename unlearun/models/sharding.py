"""A policy spread over processes (FSDP2): each holds a share of every weight, and a layer comes together to run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from unlearun.models.layers import find_layers

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from unlearun.models.policy import Policy

T = TypeVar("T")


def shard(policy: Policy, mesh: DeviceMesh) -> Policy:
    """Spread a policy, in place, over the processes of a mesh: each decoder layer by itself, and the rest together.

    So tied embeddings and head are one weight still. All processes must run the policy equally often from then on.

    Args:
        policy: With its adapters, if any, and what is frozen chosen; on the meta device, or the same on all processes.
        mesh: Of one dimension.
    """
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    for layer in find_layers(policy.model).layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    # By default the root stays together after a forward pass, and a change of its weights would be lost.
    fully_shard(policy, mesh=mesh, reshard_after_forward=True)
    register_fsdp_forward_method(policy, "run")
    return policy


def is_share(tensor: Tensor) -> bool:
    """Say whether a tensor is this process's share of a larger one."""
    return hasattr(tensor, "full_tensor")


def is_sharded(module: nn.Module) -> bool:
    """Say whether weights of a module are spread over processes."""
    return any(is_share(weight) for weight in module.parameters())


def whole(tensor: Tensor) -> Tensor:
    """Return all of a tensor; if it is a share, all processes must ask at once."""
    return torch.as_tensor(tensor.full_tensor()) if hasattr(tensor, "full_tensor") else tensor


def spread_as(tensor: Tensor, like: Any) -> Tensor:  # noqa: ANN401 - a tensor or a share
    """Return a tensor spread as another one is.

    Args:
        tensor: The same on all processes, or spread already.
        like: What tells how.
    """
    if not is_share(like) or is_share(tensor):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


def most(count: int, policy: Policy) -> int:
    """Return the largest of the counts that the processes have, where they must run a policy together; else one's own.

    Args:
        count: How often this process would run it.
        policy: Sharded or not.
    """
    return _across(count, policy, distributed.ReduceOp.MAX) if is_sharded(policy) else count


def in_company(policy: Policy, work: Callable[[], T]) -> T:
    """Run what runs the transformers model inside a policy, as generating does, as often as this process needs.

    Where it is sharded, who has done takes part in what the others still run.

    Args:
        policy: Sharded or not; all processes must come here equally often.
        work: Takes nothing.

    Returns:
        What it returned.
    """
    if not is_sharded(policy):
        return work()

    def announce(*_: object) -> None:
        _across(1, policy, distributed.ReduceOp.SUM)

    @torch.no_grad()
    def run() -> T:
        handle = policy.model.register_forward_pre_hook(announce)
        try:
            result = work()
        finally:
            handle.remove()
        token = torch.zeros((1, 1), dtype=torch.long, device=_device(policy))
        while _across(0, policy, distributed.ReduceOp.SUM):
            policy.model(input_ids=token, use_cache=False)
        return result

    return policy.run(run)


def _across(value: int, policy: Policy, operation: Any) -> int:  # noqa: ANN401 - torch has no type for it
    shared = torch.tensor(value, device=_device(policy))
    distributed.all_reduce(shared, operation)
    return int(shared)


def _device(policy: Policy) -> torch.device:
    return next(policy.parameters()).device
