"""What strategies that spread a model over processes need of a method, and what they cannot do."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, Strategy

from unlearun.errors import UnlearunError
from unlearun.models import StoredWeights, has_adapters, is_sharded, layer_classes, shard

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from unlearun.methods.base import UnlearningMethod

log = logging.getLogger(__name__)

ELSE = "use --trainer.strategy fsdp2, or ddp"


def hides_weights(strategy: Strategy) -> bool:
    """Say whether weights are whole only while a strategy's own module runs: FSDP1, and DeepSpeed at stage 3.

    Args:
        strategy: Of the Trainer.
    """
    return isinstance(strategy, FSDPStrategy) or (isinstance(strategy, DeepSpeedStrategy) and strategy.zero_stage_3)


def prepare(method: UnlearningMethod, stored: StoredWeights | None) -> None:
    """Bring a model that is loaded into the form that the Trainer's strategy wants.

    Args:
        method: Attached to a Trainer or not.
        stored: What its policy is to be filled from, if it has no weights yet.

    Raises:
        UnlearunError: The strategy cannot run it.
    """
    strategy: Any = None if method._trainer is None else method.trainer.strategy
    if method.device_mesh is not None:
        _spread(method, method.device_mesh, stored)
    elif strategy is not None and hides_weights(strategy):
        method.policy.runs_together = True
        if method.has_copy:
            method.keep_reference()  # later the model cannot be copied
        if isinstance(strategy, FSDPStrategy) and "auto_wrap_policy" not in strategy.kwargs:
            from torch.distributed.fsdp.wrap import ModuleWrapPolicy

            strategy.kwargs["auto_wrap_policy"] = ModuleWrapPolicy(layer_classes(method.model))


def check(method: UnlearningMethod) -> None:
    """Check, before a fit, that the strategy can do what is asked.

    Args:
        method: Attached to a Trainer.

    Raises:
        UnlearunError: It cannot.
    """
    trainer: Any = method.trainer
    name = type(trainer.strategy).__name__
    if not hides_weights(trainer.strategy):
        return
    embedding = method.model.get_output_embeddings().weight
    tied = embedding is method.model.get_input_embeddings().weight
    if isinstance(trainer.strategy, FSDPStrategy) and trainer.world_size == 1 and tied and not embedding.requires_grad:
        raise UnlearunError(
            f"{name} on one device, where there is nothing to share, cannot run {type(method).__name__}, which trains "
            "no embeddings, with a model whose output embeddings are its input embeddings: leave out --trainer.strategy"
        )
    needs = {need for need, _ in method.reference_needs}
    adapted = has_adapters(method.policy)
    if "weights" in needs or (needs and not adapted and not method.has_copy):
        remedy = "" if "weights" in needs else "; keep a whole copy in each process (--model.reference_way copy)"
        raise UnlearunError(
            f"the loss of {type(method).__name__} reads the model as it was, which {name} cannot put back{remedy}; "
            f"train adapters (--model.lora.r 16); or {ELSE}"
        )
    clips = trainer.gradient_clip_val and str(trainer.gradient_clip_algorithm or "norm").endswith("norm")
    if clips and isinstance(trainer.strategy, FSDPStrategy):
        raise UnlearunError(
            f"{name} cannot clip a gradient by its length: {ELSE}, or --trainer.gradient_clip_algorithm value"
        )


def prepare_deepspeed(trainer: Any) -> None:  # noqa: ANN401 - a Trainer
    """Tell DeepSpeed how many rows a batch has, which it would look for where two loaders have none.

    Args:
        trainer: Whose strategy is DeepSpeed.
    """
    if trainer.ckpt_path:
        log.warning(
            "DeepSpeed reads %s with pickle, which runs what a file says: go on from checkpoints of your own alone",
            trainer.ckpt_path,
        )
    settings = trainer.strategy.config
    if isinstance(settings, dict):
        settings.setdefault("train_micro_batch_size_per_gpu", getattr(trainer.datamodule, "batch_size", None) or 1)


def divides_again(trainer: Any) -> int:  # noqa: ANN401 - a Trainer
    """Return what a strategy divides a loss by after Lightning has: DeepSpeed by the accumulation, a second time.

    Args:
        trainer: Whose strategy it is.
    """
    return trainer.accumulate_grad_batches if trainer.strategy.handles_gradient_accumulation else 1


def ends_step(trainer: Any) -> bool:  # noqa: ANN401 - a Trainer
    """Say whether an optimizer step is taken after this batch: DeepSpeed is asked to at each, and counts by itself.

    Args:
        trainer: That is training.
    """
    if not trainer.strategy.handles_gradient_accumulation:
        return True
    return (trainer.fit_loop.batch_idx + 1) % trainer.accumulate_grad_batches == 0


def check_windows(trainer: Any) -> None:  # noqa: ANN401 - a Trainer
    """Check, once the number of batches is known, that every optimizer step is within an epoch.

    Args:
        trainer: That begins to train.

    Raises:
        UnlearunError: DeepSpeed, which knows no epochs, would carry batches over into the next.
    """
    each, batches = trainer.accumulate_grad_batches, trainer.num_training_batches
    if trainer.strategy.handles_gradient_accumulation and batches % each:
        raise UnlearunError(
            f"an epoch has {batches} batches, and with DeepSpeed that must be a multiple of accumulate_grad_batches "
            f"({each}), for it carries the last ones over into the next epoch: set it, or batch_size, to fit; or {ELSE}"
        )


def whole_weights(method: UnlearningMethod) -> dict[str, Any] | None:
    """Return the weights of a model that its strategy hides; all processes must ask at once, and the first gets them.

    Args:
        method: Trained just now.

    Returns:
        Its state by the names of transformers; None where this strategy cannot give it.
    """
    strategy: Any = method.trainer.strategy
    if has_adapters(method.policy):
        return None
    if isinstance(strategy, DeepSpeedStrategy) and strategy.zero_stage_3:
        return _gathered(method)
    if not isinstance(strategy, FSDPStrategy) or strategy._state_dict_type != "full":
        return None
    prefix = "policy.model."
    state = strategy.lightning_module_state_dict().items()
    return {name.removeprefix(prefix): weight for name, weight in state if name.startswith(prefix)}


def _gathered(method: UnlearningMethod) -> dict[str, Any]:
    """Bring together the weights that DeepSpeed has in shares, one at a time, in the first process."""
    from deepspeed import zero

    state: dict[str, Any] = {name: buffer.cpu() for name, buffer in method.model.named_buffers()}
    for name, weight in method.model.named_parameters():
        with zero.GatheredParameters([weight]):
            if method.trainer.is_global_zero:
                state[name] = weight.detach().cpu().clone()
    return state


def _spread(method: UnlearningMethod, mesh: DeviceMesh, stored: StoredWeights | None) -> None:
    """Spread a policy, and a copy that is its reference, over the processes of FSDP2."""
    if mesh["tensor_parallel"].size() > 1:
        raise UnlearunError(
            f"tensor_parallel_size is {mesh['tensor_parallel'].size()}, and a model is sharded by rows of its "
            "weights alone: use --trainer.strategy fsdp2, or set tensor_parallel_size: 1"
        )
    if method.load_in_4bit:
        raise UnlearunError("load_in_4bit does not work with FSDP2, which cannot shard packed weights; use ddp")
    trainer: Any = method.trainer
    fit_loop = trainer.fit_loop.epoch_loop.val_loop
    for loop in (fit_loop, trainer.validate_loop, trainer.test_loop, trainer.predict_loop):
        loop.inference_mode = False  # a weight that came together in it first could not be trained later
    if not is_sharded(method.policy):
        method.shard_reference(mesh["data_parallel"], stored)
        shard(method.policy, mesh["data_parallel"])
        if stored is not None:
            stored.fill(method.policy, trainer.strategy.root_device)
