"""What the outcome of an attack follows from, so that nothing is found twice, and nothing stale is taken for new."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlearun.models.loading import ADAPTER_FILE, belonging, locate

if TYPE_CHECKING:
    from unlearun.attacks.victim import Victim

# To be counted up whenever an attack finds something else than before with the same settings.
FORMAT = 5


def facts_of(victim: Victim) -> dict[str, Any]:
    """Say what the outcome of an attack follows from, beside its own settings: the model, the data, how it is run.

    Args:
        victim: The model and its data.
    """
    described = victim.plain_data.describe()
    described.pop("cautions")
    trained = {name: str(victim.data.get(name)) for name in ("forget", "retain", "batch_size", "final_metrics", "root")}
    # Attacks read it all, whichever of its rows are evaluated, or others in their stead.
    trained["retain rows"] = digest_of([repr(item) for item in victim.plain_data.read().get("retain", ())])
    return {
        "format": FORMAT,
        "model": digest_of_weights(victim.model),
        "data": described,
        "trained": trained,
        "precision": str(victim.precision),
        "dtype": victim.dtype,
        "seed": victim.seed,
    }


def digest_of_weights(model: str) -> str:
    """Return a digest of a model's files, of an adapter with those of its base; of one that is no folder, its name.

    Args:
        model: See `locate`.
    """
    where, how = locate(model)
    folder = Path(where)
    if not folder.is_dir():
        return model
    files = (
        [folder / how["gguf_file"]] if how else sorted([*folder.glob("*.safetensors"), *folder.glob("*config.json")])
    )
    state = hashlib.blake2b(digest_size=16)
    for file in files:
        state.update(file.name.encode())
        with file.open("rb") as opened:
            while block := opened.read(1 << 24):
                state.update(block)
    if (folder / ADAPTER_FILE).is_file():
        with belonging(folder) as base:
            state.update(digest_of_weights(base).encode())
    return state.hexdigest()


def digest_of(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """Return 32 hexadecimal digits that change whenever a JSON value does.

    Args:
        value: What JSON lacks counts as text.
    """
    return hashlib.blake2b(json.dumps(value, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()
