"""Every method as a plain Hugging Face loop has it: what ours is measured against, and checked by.

A deep-copied reference run live, full fp32 logits, forget and retain in forwards of their own, each padded to its
longest row, unfused AdamW; for RMU the full depth, with gradients for all weights. The model gets the whole batch, as
Hugging Face's trainers hand it over, so it makes its own loss of the labels, whether that is what is wanted or not. It
knows nothing of unlearun.

Shapes: B rows, T tokens, V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, logsigmoid

REFERENCED = ("grad_diff_kl", "npo", "dpo", "rmu")
OUTPUT_PROJECTIONS = ("mlp.down_proj", "mlp.c_proj", "mlp.fc2", "mlp.dense_4h_to_h", "fc2")

Row = tuple[Sequence[int], int]  # its tokens, and where its answer begins


class Padded(NamedTuple):
    """Rows beside each other: ``(B, T)`` each.

    Attributes:
        ids: Tokens.
        mask: 1 at real ones.
        labels: Tokens of the answer, else -100.
        targets: The token that follows, where it is one of the answer, else -100.
    """

    ids: Tensor
    mask: Tensor
    labels: Tensor
    targets: Tensor


def pad(rows: Sequence[Row], device: str) -> Padded:
    """Pad rows to the longest of them."""
    shape = (len(rows), max(len(ids) for ids, _ in rows))
    batch = Padded(*(torch.full(shape, value) for value in (0, 0, -100, -100)))
    for i, (ids, start) in enumerate(rows):
        batch.ids[i, : len(ids)] = torch.tensor(ids)
        batch.mask[i, : len(ids)] = 1
        batch.labels[i, start : len(ids)] = torch.tensor(ids[start:])
        batch.targets[i, start - 1 : len(ids) - 1] = torch.tensor(ids[start:])
    return Padded(*(tensor.to(device) for tensor in batch))


def logits(model: nn.Module, batch: Padded) -> Tensor:
    """Return ``(B, T, V)``, in fp32 or more, of a model that has made its own loss, too."""
    inputs = {"input_ids": batch.ids, "attention_mask": batch.mask, "labels": batch.labels}
    scores = model(**inputs, use_cache=False).logits
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def token_nll(scores: Tensor, batch: Padded) -> Tensor:
    """Return ``(B, T)`` of logits ``(B, T, V)``, 0 outside the answer."""
    losses = cross_entropy(scores.flatten(0, 1), batch.targets.flatten(), reduction="none")
    return losses.view_as(batch.targets)


def mean_nll(model: nn.Module, batch: Padded) -> Tensor:
    """Return the mean over answer tokens: the model's own loss, but for its fp32 where the model has more."""
    scores = model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False).logits
    losses = token_nll(scores.to(torch.promote_types(scores.dtype, torch.float32)), batch)
    return losses.sum() / (batch.targets >= 0).sum()


def mean_kl(model: nn.Module, frozen: nn.Module, batch: Padded) -> Tensor:
    """Return the mean over answer tokens of KL(frozen ‖ model)."""
    with torch.no_grad():
        start = logits(frozen, batch).log_softmax(-1)
    now = logits(model, batch).log_softmax(-1)
    return kl_div(now, start, reduction="none", log_target=True).sum(-1)[batch.targets >= 0].mean()


def gain(model: nn.Module, frozen: nn.Module, batch: Padded) -> Tensor:
    """Return S - S_ref ``(B,)``."""
    now = -token_nll(logits(model, batch), batch).sum(-1)
    with torch.no_grad():
        start = -token_nll(logits(frozen, batch), batch).sum(-1)
    return now - start


def forget_loss(method: str, model: nn.Module, frozen: Any, batches: dict[str, Padded], options: Any) -> Tensor:
    """Return the forget loss of all methods but RMU."""
    forget = batches["forget"]
    if method in ("grad_ascent", "grad_diff", "grad_diff_kl"):
        return -mean_nll(model, forget)
    beta = options["beta"]
    if method == "npo":
        margin = -gain(model, frozen, forget)
    elif method == "dpo":
        margin = gain(model, frozen, batches["alternate"]) - gain(model, frozen, forget)
    else:
        margin = token_nll(logits(model, forget), forget).sum(-1) / (forget.targets >= 0).sum(-1) - options["delta"]
    return (-2 / beta * logsigmoid(beta * margin)).mean()


def losses(method: str, model: nn.Module, frozen: Any, batches: dict[str, Padded], options: Any) -> dict[str, Tensor]:
    """Return the forget loss and, but for gradient ascent, the retain loss."""
    if method == "rmu":
        return rmu_losses(model, frozen, batches["forget"], batches["retain"], options)
    parts = {"forget_loss": forget_loss(method, model, frozen, batches, options)}
    if method == "grad_diff_kl":
        parts["retain_loss"] = mean_kl(model, frozen, batches["retain"])
    elif method != "grad_ascent":
        parts["retain_loss"] = mean_nll(model, batches["retain"])
    return parts


def rmu_losses(model: nn.Module, frozen: nn.Module, forget: Padded, retain: Padded, options: Any) -> dict[str, Tensor]:
    """Run the whole depth, and compare what one layer puts out ``(B, T, D)``."""
    kept: list[Tensor] = []
    layer = options["target_layer"]

    def keep(_module: nn.Module, _inputs: object, output: Any) -> None:
        kept.append(output if isinstance(output, Tensor) else output[0])

    hooks = [decoder_layers(each)[layer].register_forward_hook(keep) for each in (model, frozen)]
    outputs = [logits(model, forget), logits(model, retain)]  # held until the losses are made, as trainers do
    with torch.no_grad():
        outputs.append(logits(frozen, retain))
    for hook in hooks:
        hook.remove()
    direction = torch.rand(kept[0].shape[-1], generator=torch.Generator().manual_seed(0))
    target = options["steering_coeff"] * (direction / direction.norm()).to(kept[0].device)
    return {
        "forget_loss": distance(kept[0], target, forget),
        "retain_loss": distance(kept[1], kept[2], retain),
    }


def distance(hidden: Tensor, target: Tensor, batch: Padded) -> Tensor:
    """Return the row mean of the mean of ‖hidden - target‖²/D over answer tokens."""
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    # Where a target stands, the token is one before the answer's: the mask moves one on.
    answer = torch.nn.functional.pad(batch.targets >= 0, (1, -1))
    squared = (hidden.to(dtype) - target.to(dtype)).square().mean(-1)
    return ((squared * answer).sum(-1) / answer.sum(-1)).mean()


def decoder_layers(model: Any) -> nn.ModuleList:
    """Return the list that is as long as the model is deep."""
    depth = model.config.get_text_config().num_hidden_layers
    return next(each for each in model.modules() if isinstance(each, nn.ModuleList) and len(each) == depth)


def trained(method: str, model: nn.Module, options: Any) -> list[nn.Parameter]:
    """Return what the optimizer steps: all, or RMU's output projections of three layers."""
    if method != "rmu":
        return list(model.parameters())
    layer = options["target_layer"]
    chosen = decoder_layers(model)[max(0, layer - 2) : layer + 1]
    return [
        parameter
        for each in chosen
        for name, parameter in each.named_parameters()
        if name.rpartition(".")[0] in OUTPUT_PROJECTIONS
    ]


def train(
    method: str,
    model: Any,
    steps: Iterable[dict[str, Sequence[Row]]],
    options: dict[str, Any],
    learning_rate: float,
    bf16: bool,
    begun: Callable[[], None],
    ended: Callable[[dict[str, float]], None],
) -> None:
    """Train a model.

    Args:
        method: One of those of the benchmark.
        model: A causal LM, on its device.
        steps: Rows of forget, retain and, for DPO, alternate, for each step.
        options: gamma, alpha, and what else the loss takes.
        learning_rate: AdamW's.
        bf16: Whether to compute in bfloat16.
        begun: Called before the first step.
        ended: Called after each step with its losses.
    """
    frozen = deepcopy(model).eval().requires_grad_(False) if method in REFERENCED else None
    model.train()
    optimizer = torch.optim.AdamW(trained(method, model, options), lr=learning_rate)
    device = next(model.parameters()).device.type
    begun()
    for rows in steps:
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            batches = {name: pad(those, device) for name, those in rows.items()}
            parts = losses(method, model, frozen, batches, options)
            loss = options["gamma"] * parts["forget_loss"]
            if "retain_loss" in parts:
                loss = loss + options["alpha"] * parts["retain_loss"]
        loss.backward()
        optimizer.step()
        model.zero_grad()
        ended({"loss": loss.item(), **{name: part.item() for name, part in parts.items()}})
