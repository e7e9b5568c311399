"""Data: where rows come from, and how they become batches."""

from unlearun.data.batch import Batch
from unlearun.data.collate import collate
from unlearun.data.datamodule import UnlearningDataModule
from unlearun.data.formatting import Example, Formatter
from unlearun.data.preview import preview
from unlearun.data.refusals import REFUSALS, choose_refusal
from unlearun.data.rows import Item, Keys
from unlearun.data.sources import Row, Source, read_rows

__all__ = [
    "REFUSALS",
    "Batch",
    "Example",
    "Formatter",
    "Item",
    "Keys",
    "Row",
    "Source",
    "UnlearningDataModule",
    "choose_refusal",
    "collate",
    "preview",
    "read_rows",
]
