"""Pure tensor functions: tensors in, tensors out, no model call, no state."""

from unlearun.ops.divergence import token_kl, token_kl_and_entropy
from unlearun.ops.logprobs import (
    TokenStats,
    answer_mask,
    sequence_logprobs,
    split_tokens,
    token_logprobs,
    token_stats,
)

__all__ = [
    "TokenStats",
    "answer_mask",
    "sequence_logprobs",
    "split_tokens",
    "token_kl",
    "token_kl_and_entropy",
    "token_logprobs",
    "token_stats",
]
