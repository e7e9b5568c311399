"""The network: loading it, running it, freezing a reference of it, writing it."""

from unlearun.models.alternates import AlternateSettings, own_alternates, read_alternates, write_alternates
from unlearun.models.cached_states import CachedStates
from unlearun.models.checkpointing import Checkpointing, checkpoint_layers
from unlearun.models.export import CHECKPOINT_KEY, export_checkpoint, save_folder, save_model
from unlearun.models.generation import answers_of
from unlearun.models.gradients import gradient_norms
from unlearun.models.head import FrozenHead
from unlearun.models.layers import check_layer, choose_layers, find_layers, layer_classes, output_projection
from unlearun.models.lens import lens_logprobs, mean_states
from unlearun.models.loading import ModelLike, TokenizerLike, base_of, lasting_name, load_model, load_tokenizer
from unlearun.models.lora import LoRA, adapter_names, add_adapters, has_adapters, scale_adapters
from unlearun.models.memory import return_freed_memory
from unlearun.models.merging import merge
from unlearun.models.plain_file import read_plain
from unlearun.models.policy import Policy
from unlearun.models.quantised import QUANTISATIONS, Quantisation, missing_package, quantisation_hushed
from unlearun.models.reference import (
    AdaptersOff,
    FrozenCopy,
    LiveReference,
    OriginalWeights,
    Reference,
    SplitReference,
)
from unlearun.models.reference_cache import CachedLogprobs, weights_digest
from unlearun.models.sharding import is_sharded, is_share, length, most, shard
from unlearun.models.share_checkpoint import read_plainly
from unlearun.models.share_loading import StoredWeights, open_shares
from unlearun.models.soundness import check_comparable, token_count

__all__ = [
    "CHECKPOINT_KEY",
    "QUANTISATIONS",
    "AdaptersOff",
    "AlternateSettings",
    "CachedLogprobs",
    "CachedStates",
    "Checkpointing",
    "FrozenCopy",
    "FrozenHead",
    "LiveReference",
    "LoRA",
    "ModelLike",
    "OriginalWeights",
    "Policy",
    "Quantisation",
    "Reference",
    "SplitReference",
    "StoredWeights",
    "TokenizerLike",
    "adapter_names",
    "add_adapters",
    "answers_of",
    "base_of",
    "check_comparable",
    "check_layer",
    "checkpoint_layers",
    "choose_layers",
    "export_checkpoint",
    "find_layers",
    "gradient_norms",
    "has_adapters",
    "is_sharded",
    "is_share",
    "lasting_name",
    "layer_classes",
    "length",
    "lens_logprobs",
    "load_model",
    "load_tokenizer",
    "mean_states",
    "merge",
    "missing_package",
    "most",
    "open_shares",
    "output_projection",
    "own_alternates",
    "quantisation_hushed",
    "read_alternates",
    "read_plain",
    "read_plainly",
    "return_freed_memory",
    "save_folder",
    "save_model",
    "scale_adapters",
    "shard",
    "token_count",
    "weights_digest",
    "write_alternates",
]
