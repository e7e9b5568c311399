"""The one module that runs the network, for training and for evaluation.

Shapes: B rows, T tokens, N labelled tokens of the batch in row order, V vocabulary, D width.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unlearun.data import Batch
from unlearun.errors import UnlearunError
from unlearun.models.head import HEAD_TOKENS, scale_logits
from unlearun.models.layers import Below, first_trained_layer, run_up_to
from unlearun.models.memory import return_freed_memory, returned_behind
from unlearun.models.prefix_tree import PrefixTree, deal, prefix_tree, token_rows, two_branches
from unlearun.models.tied_embeddings import only_seen_tokens
from unlearun.ops import TokenStats, answer_mask, token_logprobs, token_stats

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

T = TypeVar("T")
Want = Literal["logprobs", "stats", "logits", "states", "hidden"]

KEPT_LOGITS = 1 << 26  # numbers that wait for the backward pass; of more, each chunk's are made again there
HEADS = ("summary", "classifier")  # whose dropout no causal LM runs


class Policy(nn.Module):
    """A causal LM with one forward for all that losses and metrics ask.

    Logits are made at labelled positions only, so nothing of size ``(B, T, V)`` ever exists. What rows of a batch
    begin with alike, a system prompt or a question with several answers, runs once, and padding hardly at all.

    Args:
        model: A causal LM of transformers. It is put in train mode, so that its dropout, if any, is on in training.
        share_prefixes: False runs each row by itself. True does so where dropout is on, where the architecture
            cannot do otherwise, and where it would save little.

    Attributes:
        runs_together: Whether all processes must run it equally often, for they share its weights in a way that does
            not show in them; those of FSDP2 do.
    """

    def __init__(self, model: PreTrainedModel, share_prefixes: bool = True) -> None:
        super().__init__()
        self.model = model.train()
        self.share_prefixes = share_prefixes
        self.runs_together = False
        self._head_is_known = False
        self._can_branch: dict[int | None, bool] = {}
        self._below: Below | None = None

    def forward(self, batch: Batch, want: Want, layer: int | Sequence[int] | None = None) -> Any:  # noqa: ANN401
        """Run the network once.

        Args:
            batch: Rows with labels.
            want: "logprobs": the log-probability of each label, ``(B, T)``, 0 where there is none. "stats": a
                `TokenStats`. "logits": ``(N, V)``, the scores that predict the labels. "states": ``(N, D)``, the last
                hidden states, of which the head makes them. "hidden": ``(B, T, D)``, what decoder layer ``layer``
                puts out, or a list of them for several; nothing after the last of them runs.
            layer: Counted from 0, or several, for "hidden".

        Returns:
            What is wanted.
        """
        if want == "hidden":
            if layer is None:
                raise ValueError("want='hidden' needs a layer")
            outputs = self._hidden(batch, (layer,) if isinstance(layer, int) else layer)
            return outputs[0] if isinstance(layer, int) else outputs
        if not self._head_is_known:
            self._check_head(batch.input_ids[:1, :4])
        predicts, labels = _shift(batch.labels)
        tree = self._tree(batch)
        with self._thrifty(head=want != "states"):
            states = self._states(batch, tree)
        hidden = _pick(states, (_places(batch) if tree is None else tree.nodes)[predicts])
        if want == "states":
            return hidden
        if want == "logits":
            return self.head(hidden)
        if want == "logprobs":
            return _spread(self._logprobs(hidden, labels), batch.labels)
        parts = [token_stats(self.head(some), theirs) for some, theirs in _chunks(hidden, labels)]
        return TokenStats(*(_spread(torch.cat(values), batch.labels) for values in zip(*parts, strict=True)))

    @contextmanager
    def sharing_frozen_layers(self) -> Iterator[None]:
        """Let all forwards for "hidden" in the context, which must be over one batch, run the lowest layers once.

        They are those below all that is trained, whose output is the same before and after any step. With dropout
        it is not, and each forward runs them for itself.
        """
        self._below = None if self._drops() else Below(first_trained_layer(self.model))
        try:
            yield
        finally:
            self._below = None

    def run(self, work: Callable[[], T]) -> T:
        """Call a function that runs the transformers model inside; where this is sharded, its head is there meanwhile.

        Args:
            work: Takes nothing.
        """
        return work()

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        max_new_tokens: int,
        end_ids: list[int],
        temperature: float = 0.0,
    ) -> Tensor:
        """Continue prompts.

        Args:
            input_ids: ``(B, T)``, padded on the left.
            attention_mask: ``(B, T)``.
            max_new_tokens: At most so many tokens are added.
            end_ids: Any of these ends a row.
            temperature: Scores are divided by it before tokens are drawn; 0 is greedy.

        Returns:
            ``(B, M)`` new tokens, the end token repeated behind the end.
        """
        with in_eval_mode(self.model), _own_settings_aside(self.model):
            output = self.model.generate(
                input_ids=input_ids,
                attention_mask=attention_mask,
                max_new_tokens=max_new_tokens,
                **({"do_sample": True, "temperature": temperature, "top_k": 0} if temperature > 0 else {}),
                eos_token_id=end_ids,
                pad_token_id=end_ids[0],
                synced_gpus=False,  # transformers' own way to keep step; see `in_company`
            )
        return torch.as_tensor(output)[:, input_ids.shape[1] :]

    def _decode(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor | None = None) -> Tensor:
        """Return the last hidden states ``(B, T, D)`` of tokens ``(B, T)``; the mask may be a tree's."""
        base = self.model.base_model
        positions = {} if position_ids is None else {"position_ids": position_ids}
        padded_left = position_ids is None and not attention_mask[:, 0].all()
        if padded_left and "position_ids" in inspect.signature(base.forward).parameters:
            # Learned positions would count the padding.
            positions["position_ids"] = (attention_mask.cumsum(-1) - 1).clamp(min=0)
        output = base(input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **positions)
        return output.last_hidden_state

    def _tree(self, batch: Batch, layer: int | None = None) -> PrefixTree | None:
        """Pack the rows, where that is cheaper and the architecture, up to a layer if one is given, can."""
        if layer not in self._can_branch:  # asked whatever the batch, for sharded processes must run it together
            with nullcontext() if layer is None else run_up_to(self.model, layer):
                self._can_branch[layer] = self.share_prefixes and self._check_tree(batch)
            does = "runs what rows begin with alike once" if self._can_branch[layer] else "runs rows of their own"
            log.info("%s %s", type(self.model).__name__, does)
        if not self._can_branch[layer] or self._drops():
            return None
        groups = deal(token_rows(batch), batch.input_ids.shape[1], self.model.config.get_text_config())
        return None if groups is None else prefix_tree(batch, groups, self.model.dtype)

    def _drops(self) -> bool:
        """Say whether dropout is on: rows that share a token would share what it loses."""
        if not self.model.training:
            return False
        config = vars(self.model.config.get_text_config()).items()
        rates = [rate for name, rate in config if ("drop" in name or "jitter" in name) and not name.startswith(HEADS)]
        rates += [module.p for module in self.model.modules() if isinstance(module, nn.Dropout)]
        return any(isinstance(rate, (int, float)) and rate > 0 for rate in rates)

    def _states(self, batch: Batch, tree: PrefixTree | None) -> Tensor:
        """Run the decoder and return its last hidden states: ``(B, T, D)`` of rows, ``(G, P, D)`` of a tree."""
        if tree is None:
            return self._decode(batch.input_ids, batch.attention_mask)
        return self._decode(tree.input_ids, tree.mask, tree.position_ids)

    @contextmanager
    def _thrifty(self, head: bool) -> Iterator[None]:
        """Spare memory at the embedding in the backward pass.

        Args:
            head: Whether the head takes part.
        """
        if self.model.base_model._compiled_call_impl is not None:  # which would be compiled anew for either mode
            yield
            return
        tied = only_seen_tokens(self.model) if head else nullcontext()
        with tied, returned_behind(self.model.get_input_embeddings()):
            yield
        if torch.is_grad_enabled() and self.model.device.type == "cpu":
            return_freed_memory()

    def _hidden(self, batch: Batch, layers: Sequence[int]) -> list[Tensor]:
        tree = self._tree(batch, max(layers))
        with run_up_to(self.model, *layers, below=self._below) as captured:
            self._states(batch, tree)
        found = [captured.hidden[layer] for layer in layers]
        # Not what a layer returned itself: where both are sharded, the backward pass must come to the policy first.
        return [states.view_as(states) if tree is None else _pick(states, tree.nodes) for states in found]

    def _logprobs(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Score labels ``(N,)`` by hidden states ``(N, D)``; the logits that exist at a time are limited."""
        if not torch.is_grad_enabled():
            return torch.cat([token_logprobs(self.head(some), theirs) for some, theirs in _chunks(hidden, labels)])
        size = max(1, KEPT_LOGITS // self.model.config.get_text_config().vocab_size)
        if len(labels) <= size:
            return self._score(hidden, labels)
        chunks = zip(hidden.split(size), labels.split(size), strict=True)
        return torch.cat([checkpoint(self._score, *chunk, use_reentrant=False) for chunk in chunks])

    def _score(self, hidden: Tensor, labels: Tensor) -> Tensor:
        return token_logprobs(self.head(hidden), labels, consume=True)

    @torch.no_grad()
    def _check_head(self, input_ids: Tensor) -> None:
        """Compare our logits with the architecture's own, once, on a few tokens ``(1, T)``.

        Raises:
            UnlearunError: They differ: every loss and metric would be wrong without a sign of it.
        """
        mask = torch.ones_like(input_ids)
        with in_eval_mode(self.model):
            ours = self.head(self._decode(input_ids, mask)).float()
            theirs = self.model(input_ids=input_ids, attention_mask=mask, use_cache=False).logits.float()
        finite = ours.isfinite() & theirs.isfinite()  # a model that is broken can be measured all the same
        ours, theirs = ours[finite], theirs[finite]
        # Loose enough for half precision, which never is off by a factor.
        if len(ours) and not torch.allclose(ours, theirs, rtol=0.02, atol=0.02 * float(theirs.abs().max())):
            raise UnlearunError(
                f"{type(self.model).__name__} does more to its logits than unlearun knows of, so its losses would be "
                "wrong; please report this architecture"
            )
        self._head_is_known = True

    @torch.no_grad()
    def _check_tree(self, batch: Batch) -> bool:
        """Say whether two branches of a small tree come out as they do as rows, whatever the architecture is."""
        config = self.model.config.get_text_config()
        if config._attn_implementation not in ("eager", "sdpa"):  # others may read the mask as something else
            return False
        rows = two_branches(batch, config.vocab_size)
        real, tree = rows.attention_mask.bool(), prefix_tree(rows, [[0, 1]], self.model.dtype)
        # Autocast would only blur the comparison.
        with in_eval_mode(self.model), torch.autocast(rows.input_ids.device.type, enabled=False):
            try:
                plain = self._states(rows, None)[real].float()
                branches = _pick(self._states(rows, tree), tree.nodes[real]).float()
            except Exception:  # whatever an architecture does with a mask that it does not know
                return False
        distance = (branches - plain).norm(dim=-1) / plain.norm(dim=-1)
        # SmolLM2: up to 0.03 in bfloat16, 1e-5 in float32 and from 0.4 on with a wrong attention; TF32 lies between.
        return bool((distance < (0.1 if self.model.dtype.itemsize < 4 else 0.01)).all())

    def head(self, hidden: Tensor) -> Tensor:
        """Map last hidden states ``(N, D)`` to logits ``(N, V)`` as the architecture's own forward does."""
        logits = self.model.get_output_embeddings()(hidden)
        return scale_logits(logits, self.model.config.get_text_config())


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Switch dropout off for as long as the context lasts.

    Args:
        model: The network.
    """
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@contextmanager
def _own_settings_aside(model: nn.Module) -> Iterator[None]:
    """Take away the model's generation settings: what `generate` is not told, it looks up there.

    Published ones sample, penalise repetition, suppress tokens or forbid n-grams, and greedy would not be greedy.
    """
    from transformers import GenerationConfig

    own = {module: module.generation_config for module in model.modules() if "generation_config" in vars(module)}
    plain: Any = GenerationConfig()
    try:
        for module in own:
            module.generation_config = plain
        yield
    finally:
        for module, settings in own.items():
            module.generation_config = settings


def _places(batch: Batch) -> Tensor:
    """Number the tokens ``(B, T)`` of rows of their own."""
    return torch.arange(batch.input_ids.numel(), device=batch.input_ids.device).view_as(batch.input_ids)


def _pick(states: Tensor, nodes: Tensor) -> Tensor:
    """Return the states ``(*nodes.shape, D)`` of some tokens of ``(B, T, D)``."""
    return states.flatten(0, 1).index_select(0, nodes.flatten()).view(*nodes.shape, states.shape[-1])


def _chunks(hidden: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(hidden.split(HEAD_TOKENS), labels.split(HEAD_TOKENS), strict=True)


def _shift(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return where the next token is a label ``(B, T)``, and those labels ``(N,)``."""
    mask = answer_mask(labels)
    return mask.roll(-1, dims=-1), labels[mask]  # the first column is False, so nothing wraps around


def _spread(values: Tensor, labels: Tensor) -> Tensor:
    """Put one value a label ``(N,)`` where the labels stand ``(B, T)``, and 0 elsewhere."""
    empty = torch.zeros(labels.shape, dtype=values.dtype, device=values.device)
    return empty.masked_scatter(answer_mask(labels), values)
