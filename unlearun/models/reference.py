"""What a loss needs of the model as it was before unlearning.

Shapes: B rows, T tokens, N labelled tokens of the batch in row order, V vocabulary, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unlearun.data import Batch
from unlearun.models.head import FrozenHead
from unlearun.models.lora import adapter_names, without_adapters
from unlearun.models.policy import Policy, in_eval_mode
from unlearun.models.sharding import spread_as
from unlearun.ops import sequence_logprobs

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Reference(ABC):
    """The frozen start, asked for exactly what a loss needs. It is no module: it is never in a checkpoint."""

    @abstractmethod
    def token_logprobs(self, batch: Batch) -> Tensor:
        """Return the log-probability of each label ``(B, T)``, in nats, 0 where there is none."""

    def sequence_logprobs(self, batch: Batch) -> Tensor:
        """Return S_ref ``(B,)``, the summed log-probability of each answer, in nats."""
        return sequence_logprobs(self.token_logprobs(batch), batch.mask)[0]

    @abstractmethod
    def logits(self, batch: Batch) -> Tensor:
        """Return the scores ``(N, V)`` that predict the labels."""

    def logit_pieces(self, batch: Batch) -> Iterator[Tensor]:
        """Yield the same a few tokens at a time, where that spares memory."""
        yield self.logits(batch)

    @abstractmethod
    def hidden(self, batch: Batch, layers: Sequence[int]) -> list[Tensor]:
        """Return what decoder layers, counted from 0, put out, ``(B, T, D)`` each."""

    @abstractmethod
    def convert(self, change: Callable[[nn.Module], nn.Module]) -> None:
        """Change device or precision of what is kept.

        Args:
            change: Takes a module and returns it changed.
        """

    @abstractmethod
    def describe(self) -> str:
        """Say in a few words what is kept."""


class SplitReference(Reference):
    """Several references of one model, each for what it has.

    Args:
        parts: Which one is asked for which need: "logprobs", "token_logprobs", "logits" and "hidden".
    """

    def __init__(self, parts: Mapping[Any, Reference]) -> None:
        self.parts = dict(parts)

    def token_logprobs(self, batch: Batch) -> Tensor:
        """See `Reference`."""
        return self.parts["token_logprobs"].token_logprobs(batch)

    def sequence_logprobs(self, batch: Batch) -> Tensor:
        """See `Reference`."""
        return self.parts["logprobs"].sequence_logprobs(batch)

    def logits(self, batch: Batch) -> Tensor:
        """See `Reference`."""
        return self.parts["logits"].logits(batch)

    def logit_pieces(self, batch: Batch) -> Iterator[Tensor]:
        """See `Reference`."""
        return self.parts["logits"].logit_pieces(batch)

    def hidden(self, batch: Batch, layers: Sequence[int]) -> list[Tensor]:
        """See `Reference`."""
        return self.parts["hidden"].hidden(batch, layers)

    def convert(self, change: Callable[[nn.Module], nn.Module]) -> None:
        """See `Reference`."""
        for part in self._distinct():
            part.convert(change)

    def describe(self) -> str:
        """See `Reference`."""
        return "; ".join(part.describe() for part in self._distinct())

    def _distinct(self) -> list[Reference]:
        return list({id(part): part for _, part in sorted(self.parts.items(), reverse=True)}.values())


class LiveReference(Reference):
    """A reference that runs a policy when it is asked."""

    @property
    @abstractmethod
    def model(self) -> PreTrainedModel:
        """The transformers model that it runs."""

    @abstractmethod
    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield name and value of every weight that its numbers come from."""

    @abstractmethod
    def running(self, device: torch.device) -> AbstractContextManager[Policy]:
        """Give the policy as it was at the start, without dropout, for as long as the context lasts.

        Args:
            device: Where it must run.
        """

    @torch.no_grad()
    def states(self, batch: Batch) -> Tensor:
        """Return the last hidden states ``(N, D)`` that predict the labels."""
        with self.running(batch.input_ids.device) as policy:
            states: Tensor = policy(batch, "states")
            return states

    def frozen_head(self, device: torch.device) -> FrozenHead:
        """Return what makes logits of them.

        Args:
            device: Where it must run.
        """
        with self.running(device) as policy:
            return FrozenHead(policy.model)

    @torch.no_grad()
    def token_logprobs(self, batch: Batch) -> Tensor:
        """See `Reference`."""
        with self.running(batch.input_ids.device) as policy:
            logprobs: Tensor = policy(batch, "logprobs")
            return logprobs

    @torch.no_grad()
    def logits(self, batch: Batch) -> Tensor:
        """See `Reference`."""
        with self.running(batch.input_ids.device) as policy:
            logits: Tensor = policy(batch, "logits")
            return logits

    @torch.no_grad()
    def hidden(self, batch: Batch, layers: Sequence[int]) -> list[Tensor]:
        """See `Reference`."""
        with self.running(batch.input_ids.device) as policy:
            hidden: list[Tensor] = policy(batch, "hidden", layers)
            return hidden


class OriginalWeights(LiveReference):
    """The weights that are trained, as they were, put back into the policy while it is asked.

    What is frozen is shared, so it takes as much memory as what is trained: next to nothing where that is a few
    matrices, and one copy of the model where all of it is.

    Args:
        policy: The model as it is now.
        keep: False keeps nothing: then the policy must not have been trained yet when it is asked.
    """

    def __init__(self, policy: Policy, keep: bool = True) -> None:
        self.policy = policy
        trained = {name: weight for name, weight in policy.named_parameters() if weight.requires_grad}
        self._kept = {name: weight.detach().clone() for name, weight in trained.items()} if keep else {}

    @property
    def model(self) -> PreTrainedModel:
        """See `LiveReference`."""
        return self.policy.model

    @contextmanager
    def running(self, device: torch.device) -> Iterator[Policy]:
        """See `LiveReference`."""
        with in_eval_mode(self.policy):
            self._swap()
            try:
                yield self.policy
            finally:
                self._swap()

    def convert(self, change: Callable[[nn.Module], nn.Module]) -> None:
        """Follow the policy: kept weights take its device and precision when they are put back."""

    def describe(self) -> str:
        """See `Reference`."""
        size = sum(weight.numel() * weight.element_size() for weight in self._kept.values())
        return f"the trained weights as they were at the start ({size / 1e9:.2f} GB)"

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """See `LiveReference`."""
        for name, weight in self.policy.named_parameters():
            yield name, spread_as(self._kept.get(name, weight).detach(), weight)

    def _swap(self) -> None:
        """Exchange the policy's weights and the kept ones."""
        for name, weight in self.policy.named_parameters():
            if name not in self._kept:
                continue
            kept = spread_as(self._kept[name].to(weight.device, weight.dtype), weight)
            if type(weight.data) is Tensor:
                # No copy, and nothing that autograd could notice: the backward pass finds the weight as it was.
                self._kept[name], weight.data = weight.data, kept
            else:  # a shard, whose storage its owner knows
                self._kept[name] = weight.detach().clone()
                weight.detach().copy_(kept)


class AdaptersOff(LiveReference):
    """The policy with its adapters switched off: the model as it was, for no memory at all.

    Args:
        policy: With adapters.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    @property
    def model(self) -> PreTrainedModel:
        """See `LiveReference`."""
        return self.policy.model

    @contextmanager
    def running(self, device: torch.device) -> Iterator[Policy]:
        """See `LiveReference`."""
        with in_eval_mode(self.policy), without_adapters(self.policy):
            yield self.policy

    def convert(self, change: Callable[[nn.Module], nn.Module]) -> None:
        """Nothing to change: it is the policy."""

    def describe(self) -> str:
        """See `Reference`."""
        return "the model with its adapters switched off"

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """See `LiveReference`."""
        adapters = adapter_names(name for name, _ in self.policy.named_parameters())
        for name, weight in self.policy.named_parameters():
            if name not in adapters:
                yield name, weight.detach()


class FrozenCopy(LiveReference):
    """A copy of the whole model, from the weights in memory.

    Args:
        model: The model as it is now; it stays as it is.
        copy: False takes the model itself, which then must serve nothing else.
    """

    def __init__(self, model: PreTrainedModel, copy: bool = True) -> None:
        frozen = Policy(deepcopy(model) if copy else model).requires_grad_(False)
        self.policy = frozen.eval()

    @property
    def model(self) -> PreTrainedModel:
        """See `LiveReference`."""
        return self.policy.model

    @contextmanager
    def running(self, device: torch.device) -> Iterator[Policy]:
        """See `LiveReference`."""
        self.policy = self.policy.to(device)
        yield self.policy

    def convert(self, change: Callable[[nn.Module], nn.Module]) -> None:
        """See `Reference`."""
        self.policy = change(self.policy)  # type: ignore[assignment]

    def describe(self) -> str:
        """See `Reference`."""
        size = sum(weight.numel() * weight.element_size() for _, weight in self.weights())
        return f"a frozen copy of the whole model ({size / 1e9:.2f} GB)"

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """See `LiveReference`."""
        yield from self.policy.named_parameters()
