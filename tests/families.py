"""A tiny random model of every family that is supported, its weights far enough from 0 for mistakes to show."""

from __future__ import annotations

from collections.abc import Callable

import torch
import transformers as hf
from transformers import PretrainedConfig, PreTrainedModel

VOCABULARY = 64
WIDTH = 32
LAYERS = 4

COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 0,
}
GROUPED = {**COMMON, "num_key_value_heads": 2, "head_dim": 8}
GPT2 = {"vocab_size": VOCABULARY, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": 4, "n_positions": 64}
GPT2_INIT = {"initializer_range": 0.2, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
OPT = {key: value for key, value in COMMON.items() if key not in ("intermediate_size", "initializer_range")}
OPT |= {"ffn_dim": 48, "init_std": 0.2, "dropout": 0.0}

# Gemma's limits are set where the tiny model's logits reach them.
CONFIGS: dict[str, Callable[[], PretrainedConfig]] = {
    "llama": lambda: hf.LlamaConfig(**GROUPED),
    "llama-tied": lambda: hf.LlamaConfig(**GROUPED, tie_word_embeddings=True),
    "mistral": lambda: hf.MistralConfig(**GROUPED, sliding_window=4),
    "qwen2": lambda: hf.Qwen2Config(**COMMON, num_key_value_heads=2),
    "qwen3": lambda: hf.Qwen3Config(**GROUPED),
    "gemma": lambda: hf.GemmaConfig(**GROUPED),
    "gemma2": lambda: hf.Gemma2Config(**GROUPED, final_logit_softcapping=3.0, sliding_window=4),
    "gemma3": lambda: hf.Gemma3TextConfig(**GROUPED, final_logit_softcapping=3.0, sliding_window=4),
    "phi": lambda: hf.PhiConfig(**COMMON),
    "gpt2": lambda: hf.GPT2Config(**GPT2, **GPT2_INIT, bos_token_id=0, eos_token_id=0),
    "gpt_neox": lambda: hf.GPTNeoXConfig(**COMMON),
    "opt": lambda: hf.OPTConfig(**OPT),
    "opt-projected": lambda: hf.OPTConfig(**OPT, word_embed_proj_dim=16),
}
# Only their heads differ from Llama's, so they matter where logits are made.
SCALED: dict[str, Callable[[], PretrainedConfig]] = {
    "cohere": lambda: hf.CohereConfig(**COMMON, num_key_value_heads=2, logit_scale=0.25),
    "granite": lambda: hf.GraniteConfig(**COMMON, num_key_value_heads=2, logits_scaling=4.0),
}
FAMILIES = tuple(CONFIGS)


def make_family(name: str, dtype: torch.dtype = torch.float64, seed: int = 0) -> PreTrainedModel:
    """Biases and the weights of norms are moved off 0 and 1, so that leaving one out shows."""
    torch.manual_seed(seed)
    model = hf.AutoModelForCausalLM.from_config({**CONFIGS, **SCALED}[name]())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.to(dtype).eval()
