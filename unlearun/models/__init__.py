"""The network: loading it, running it, freezing a reference of it, writing it."""

from unlearun.models.cached_states import CachedStates
from unlearun.models.checkpointing import Checkpointing, checkpoint_layers
from unlearun.models.export import CHECKPOINT_KEY, export_checkpoint, save_folder
from unlearun.models.generation import greedy_answers
from unlearun.models.gradients import gradient_norms
from unlearun.models.head import FrozenHead
from unlearun.models.layers import check_layer, find_layers, output_projection
from unlearun.models.loading import ModelLike, TokenizerLike, load_model, load_tokenizer
from unlearun.models.memory import return_freed_memory
from unlearun.models.policy import Policy
from unlearun.models.reference import FrozenCopy, LiveReference, OriginalWeights, Reference, SplitReference
from unlearun.models.reference_cache import CachedLogprobs, weights_digest

__all__ = [
    "CHECKPOINT_KEY",
    "CachedLogprobs",
    "CachedStates",
    "Checkpointing",
    "FrozenCopy",
    "FrozenHead",
    "LiveReference",
    "ModelLike",
    "OriginalWeights",
    "Policy",
    "Reference",
    "SplitReference",
    "TokenizerLike",
    "check_layer",
    "checkpoint_layers",
    "export_checkpoint",
    "find_layers",
    "gradient_norms",
    "greedy_answers",
    "load_model",
    "load_tokenizer",
    "output_projection",
    "return_freed_memory",
    "save_folder",
    "weights_digest",
]
