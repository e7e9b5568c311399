"""Data: where rows come from, and how they become batches."""

from unlearun.data.alternates import AlternateKind, alternate_texts
from unlearun.data.answers import expected_text, prompt_length, prompt_text
from unlearun.data.batch import OWN, PARAPHRASE, WRONG, Batch
from unlearun.data.collate import collate
from unlearun.data.datamodule import GENERATED_TOGETHER, UnlearningDataModule
from unlearun.data.examples import Example
from unlearun.data.formatting import Formatter
from unlearun.data.preview import preview
from unlearun.data.refusals import REFUSALS, choose_refusal
from unlearun.data.rows import Item, Keys
from unlearun.data.sources import Row, Source, read_rows

__all__ = [
    "GENERATED_TOGETHER",
    "OWN",
    "PARAPHRASE",
    "REFUSALS",
    "WRONG",
    "AlternateKind",
    "Batch",
    "Example",
    "Formatter",
    "Item",
    "Keys",
    "Row",
    "Source",
    "UnlearningDataModule",
    "alternate_texts",
    "choose_refusal",
    "collate",
    "expected_text",
    "preview",
    "prompt_length",
    "prompt_text",
    "read_rows",
]
