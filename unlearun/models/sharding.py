"""A policy spread over processes (FSDP2): each holds a share of every weight, and a layer comes together to run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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


def gathered(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Bring weights together in the CPU's memory of process 0, one at a time; the others get none.

    Args:
        weights: Shares, the same names in the same order on all processes; what is whole already is taken as it is.

    Returns:
        The weights by name, one tensor where two names have one weight.
    """
    found: dict[str, Tensor] = {}
    seen: dict[int, Tensor] = {}
    for name, weight in weights.items():
        if id(weight) not in seen:
            full = whole(weight.detach())
            seen[id(weight)] = full.cpu() if distributed.get_rank() == 0 else full.new_empty(0)
        found[name] = seen[id(weight)]
    return found if distributed.get_rank() == 0 else {}


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
    return _across(count, policy, distributed.ReduceOp.MAX) if _together(policy) else count


def turns(count: int, policy: Policy) -> Iterator[int | None]:
    """Yield as often as all processes have something to do with a sharded policy, one at a time.

    Args:
        count: How many things this process has.
        policy: What they all run in every turn.

    Yields:
        The number of the thing where it is this process's turn, else None.
    """
    counts = torch.zeros(distributed.get_world_size(), dtype=torch.long, device=_device(policy))
    counts[distributed.get_rank()] = count
    distributed.all_reduce(counts)
    for owner, theirs in enumerate(counts.tolist()):
        for i in range(theirs):
            yield i if owner == distributed.get_rank() else None


def length(tensors: Sequence[Tensor]) -> Tensor:
    """Return the 2-norm of all numbers of some tensors, in at least fp32, over all shares."""
    here: list[Any] = [tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in tensors]
    shared = any(is_share(tensor) for tensor in here)
    norm = torch.stack([(tensor.to_local() if is_share(tensor) else tensor).norm() for tensor in here]).norm()
    if shared:
        square = norm.square()
        distributed.all_reduce(square)
        norm = square.sqrt()
    return norm


def in_company(policy: Policy, work: Callable[[], T]) -> T:
    """Run what runs the transformers model inside a policy, as generating does, as often as this process needs.

    Where it is sharded, who has done takes part in what the others still run.

    Args:
        policy: Sharded or not; all processes must come here equally often.
        work: Takes nothing.

    Returns:
        What it returned.
    """
    if not _together(policy):
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


def _together(policy: Policy) -> bool:
    return policy.runs_together or is_sharded(policy)


def _across(value: int, policy: Policy, operation: Any) -> int:  # noqa: ANN401 - torch has no type for it
    shared = torch.tensor(value, device=_device(policy))
    distributed.all_reduce(shared, operation)
    return int(shared)


def _device(policy: Policy) -> torch.device:
    return next(policy.parameters()).device
