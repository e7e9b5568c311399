"""The one module that runs the network, for training and for evaluation.

Shapes: B rows, T tokens, N labelled tokens of the batch in row order, V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from unlearun.data import Batch
from unlearun.errors import UnlearunError
from unlearun.models.layers import run_up_to
from unlearun.ops import TokenStats, answer_mask, token_logprobs, token_stats

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Want = Literal["logprobs", "stats", "logits", "hidden"]


class Policy(nn.Module):
    """A causal LM with one forward for all that losses and metrics ask.

    Logits are made at labelled positions only, so nothing of size ``(B, T, V)`` ever exists.

    Args:
        model: A causal LM of transformers. It is put in train mode, so that its dropout, if any, is on in training.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model.train()
        self._head_is_known = False

    def forward(self, batch: Batch, want: Want, layer: int | None = None) -> Any:  # noqa: ANN401 - see the methods
        """Run the network once.

        Args:
            batch: Rows with labels.
            want: "logprobs": the log-probability of each label, ``(B, T)``, 0 where there is none. "stats": a
                `TokenStats`. "logits": ``(N, V)``, the scores that predict the labels. "hidden": ``(B, T, D)``,
                what decoder layer ``layer`` puts out; nothing after it runs.
            layer: Counted from 0, for "hidden".

        Returns:
            What is wanted.
        """
        if want == "hidden":
            if layer is None:
                raise ValueError("want='hidden' needs a layer")
            return self._hidden(batch, layer)
        if not self._head_is_known:
            self._check_head(batch.input_ids[:1, :4])
        predicts, labels = _shift(batch.labels)
        logits = self._head(self._decode(batch.input_ids, batch.attention_mask)[predicts])
        if want == "logits":
            return logits
        if want == "logprobs":
            return _spread(token_logprobs(logits, labels), batch.labels)
        logprobs, hits = token_stats(logits, labels)
        return TokenStats(_spread(logprobs, batch.labels), _spread(hits, batch.labels))

    @torch.no_grad()
    def generate(self, input_ids: Tensor, attention_mask: Tensor, max_new_tokens: int, end_ids: list[int]) -> Tensor:
        """Continue prompts greedily.

        Args:
            input_ids: ``(B, T)``, padded on the left.
            attention_mask: ``(B, T)``.
            max_new_tokens: At most so many tokens are added.
            end_ids: Any of these ends a row.

        Returns:
            ``(B, M)`` new tokens, the end token repeated behind the end.
        """
        was_training = self.training
        self.eval()
        try:
            with _own_settings_aside(self.model):
                output = self.model.generate(
                    input_ids=input_ids,
                    attention_mask=attention_mask,
                    max_new_tokens=max_new_tokens,
                    do_sample=False,
                    eos_token_id=end_ids,
                    pad_token_id=end_ids[0],
                )
        finally:
            self.train(was_training)
        return torch.as_tensor(output)[:, input_ids.shape[1] :]

    def _decode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the last hidden states ``(B, T, D)`` of tokens ``(B, T)``."""
        output = self.model.base_model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        return output.last_hidden_state

    def _hidden(self, batch: Batch, layer: int) -> Tensor:
        with run_up_to(self.model, layer) as captured:
            self._decode(batch.input_ids, batch.attention_mask)
        if captured.hidden is None:
            raise RuntimeError(f"layer {layer} did not run")
        return captured.hidden

    @torch.no_grad()
    def _check_head(self, input_ids: Tensor) -> None:
        """Compare our logits with the architecture's own, once, on a few tokens ``(1, T)``.

        Raises:
            UnlearunError: They differ: every loss and metric would be wrong without a sign of it.
        """
        was_training, mask = self.model.training, torch.ones_like(input_ids)
        self.model.eval()
        try:
            ours = self._head(self._decode(input_ids, mask)).float()
            theirs = self.model(input_ids=input_ids, attention_mask=mask, use_cache=False).logits.float()
        finally:
            self.model.train(was_training)
        # Loose enough for half precision, which never is off by a factor.
        if not torch.allclose(ours, theirs, rtol=0.02, atol=0.02 * float(theirs.abs().max())):
            raise UnlearunError(
                f"{type(self.model).__name__} does more to its logits than unlearun knows of, so its losses would be "
                "wrong; please report this architecture"
            )
        self._head_is_known = True

    def _head(self, hidden: Tensor) -> Tensor:
        """Map last hidden states ``(N, D)`` to logits ``(N, V)`` as the architecture's own forward does."""
        logits = self.model.get_output_embeddings()(hidden)
        config = self.model.config.get_text_config()
        if (scale := getattr(config, "logit_scale", None)) is not None:  # Cohere
            logits = logits * scale
        if (divisor := getattr(config, "logits_scaling", None)) is not None:  # Granite
            logits = logits / divisor
        if (cap := getattr(config, "final_logit_softcapping", None)) is not None:  # Gemma 2 and 3
            logits = cap * torch.tanh(logits / cap)
        return logits


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


def _shift(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return where the next token is a label ``(B, T)``, and those labels ``(N,)``."""
    mask = answer_mask(labels)
    return mask.roll(-1, dims=-1), labels[mask]  # the first column is False, so nothing wraps around


def _spread(values: Tensor, labels: Tensor) -> Tensor:
    """Put one value a label ``(N,)`` where the labels stand ``(B, T)``, and 0 elsewhere."""
    empty = torch.zeros(labels.shape, dtype=values.dtype, device=values.device)
    return empty.masked_scatter(answer_mask(labels), values)
