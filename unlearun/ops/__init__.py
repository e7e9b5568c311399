"""Pure tensor functions: tensors in, tensors out, no model call, no state."""

from unlearun.ops.divergence import token_kl
from unlearun.ops.logprobs import TokenStats, answer_mask, sequence_logprobs, token_logprobs, token_stats

__all__ = ["TokenStats", "answer_mask", "sequence_logprobs", "token_kl", "token_logprobs", "token_stats"]
