"""What a mistake is, and where it is made: a folder with small data, a small model and copies of it to be broken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from conftest import FORGET, RETAIN, make_llama, make_tokenizer

CODE = "from transformers import LlamaConfig\nclass OwnConfig(LlamaConfig):\n    model_type = 'own'\n"


class Place:
    """A folder to make mistakes in, with forget.json, retain.jsonl and the model tiny of four layers.

    Args:
        folder: Empty.
        model: A folder that holds the model.
    """

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        shutil.copytree(model, folder / "tiny")
        self.write("forget.json", json.dumps(FORGET, indent=1))
        self.write("retain.jsonl", "\n".join(json.dumps(row) for row in RETAIN))

    def write(self, name: str, content: str | bytes) -> str:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return name

    def rows(self, rows: Any) -> str:
        return self.write("rows.json", json.dumps(rows))

    def rows_of(self, rows: Any) -> list[str]:
        """A fit on these as the forget rows."""
        return self.fit("--data.forget", self.rows(rows))

    def fit(self, *options: str, config: str = "simnpo") -> list[str]:
        return [
            *("fit", "--config", config, "--model.model", "tiny", "--data.forget", "forget.json"),
            *("--data.retain", "retain.jsonl", "--data.holdout", "null", "--data.utility", "null"),
            *("--data.retain_reference", "null", "--data.max_new_tokens", "4", "--trainer.max_epochs", "1"),
            *("--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"),
            *options,
        ]

    def forget(self, content: str | bytes, *options: str, name: str = "rows.json") -> list[str]:
        """A fit whose forget file holds this."""
        return self.fit("--data.forget", self.write(name, content), *options)

    def model(self, change: Callable[[Path], Any], *options: str) -> list[str]:
        """A fit of the model with this change."""
        shutil.copytree(self.folder / "tiny", self.folder / "bad")
        change(self.folder / "bad")
        return self.fit("--model.model", "bad", *options)

    def reference(self, change: Callable[[Path], Any], config: str) -> list[str]:
        """A fit whose reference is the model with this change."""
        return [*self.model(change), "--config", config, "--model.model", "tiny", "--model.reference", "bad"]

    def file(self, name: str, content: str | bytes) -> list[str]:
        """A fit of a model that is one file."""
        return self.fit("--model.model", self.write(name, content))

    def config(self, content: str | bytes) -> list[str]:
        """A fit with a config file of one's own."""
        return ["fit", "--config", "simnpo", "--config", self.write("mine.yaml", content)]


class Mistake(NamedTuple):
    """A mistake of a user.

    Attributes:
        name: What is wrong.
        make: Makes it in a place, and returns the command line.
        says: What the message must hold: what was found, and what to do.
    """

    name: str
    make: Callable[[Place], list[str]]
    says: tuple[str, ...]


def make_model(folder: Path) -> Path:
    make_llama(layers=4).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


# ---- ways to break a model --------------------------------------------------------------------------------------


def change(file: str, **settings: Any) -> Callable[[Path], None]:
    """Set, or with None leave out, keys of a JSON file."""

    def _change(folder: Path) -> None:
        stored = {**json.loads((folder / file).read_text()), **settings}
        (folder / file).write_text(json.dumps({key: value for key, value in stored.items() if value is not None}))

    return _change


def put(file: str, content: str | bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())


def cut(file: str, left: int) -> Callable[[Path], Any]:
    """Keep the first bytes alone, or, with a negative number, lose the last ones."""
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:left])


def without_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


def without_pad_and_eos(folder: Path) -> None:
    change("tokenizer_config.json", eos_token=None, pad_token=None)(folder)
    change("config.json", eos_token_id=None, pad_token_id=None)(folder)


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def own_code(folder: Path) -> None:
    (folder / "own.py").write_text(CODE)
    change("config.json", model_type="own", auto_map={"AutoConfig": "own.OwnConfig"})(folder)


def adapter_of(base: str) -> Callable[[Path], None]:
    def _adapter(folder: Path) -> None:
        for file in folder.iterdir():
            file.unlink()
        (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base, "peft_type": "LORA"}))

    return _adapter


def fewer_tokens(folder: Path) -> None:
    """A model that has no embeddings for the last of its tokenizer's tokens."""
    model = make_llama(layers=4)
    model.resize_token_embeddings(60)
    for settings in (model.config, model.generation_config):
        settings.pad_token_id = settings.eos_token_id = None
    model.save_pretrained(folder)


def wider(folder: Path) -> None:
    make_llama(layers=4, width=64).save_pretrained(folder)
