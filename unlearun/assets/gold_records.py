"""Measure the pocket model that never saw the forget rows: `python -m unlearun.assets.gold_records [DIR]`.

What it finds ships with the package, as the retain reference of the pocket configs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch import Trainer

from unlearun.data import UnlearningDataModule
from unlearun.errors import UnlearunError
from unlearun.methods import UnlearningMethod
from unlearun.records import Evaluation, summarise

COMPARED = ("forget", "holdout")
METRICS = ["perplexity", "truth_ratio", "mia_min_k"]


def write_gold_records(folder: Path) -> None:
    """Evaluate the gold model on forget and holdout rows and write ``gold_records.json`` beside them.

    Args:
        folder: Holds the data and the models.
    """
    data = UnlearningDataModule(
        str(folder / "forget.json"), holdout=str(folder / "holdout.json"), final_metrics=list(METRICS)
    )
    method = UnlearningMethod(str(folder / "gold"))
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
    trainer.validate(method, datamodule=data, verbose=False)
    if method.evaluation is None:
        raise UnlearunError("nothing was evaluated")
    found = Evaluation(0, examples=method.evaluation.examples, metrics=METRICS)
    summarise(found)
    found.fingerprint = {"model": "pocket-gold", **data.describe()}
    for name in COMPARED:
        found.fingerprint["sets"][name]["source"] = f"pocket/{name}.json"
    found.write(folder / "gold_records.json")


def main(argv: Sequence[str] | None = None) -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", nargs="?", type=Path, default=Path(__file__).parent / "pocket")
    write_gold_records(parser.parse_args(argv).dir)


if __name__ == "__main__":
    main()
