"""Train the unlearned model a little: on some of what it forgot, on what it kept, or on anything else."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeAlias

from lightning.pytorch import Callback, LightningModule, Trainer

from unlearun.attacks.base import Attack, Outcome, check_metrics
from unlearun.attacks.victim import CHEAP, Victim
from unlearun.data import Example, Source, UnlearningDataModule
from unlearun.data.answers import answer_text
from unlearun.data.sources import OPTIONS
from unlearun.errors import UnlearunError, check_bounds, check_choice
from unlearun.methods import FineTune
from unlearun.models import LoRA
from unlearun.records import FORGET, mean_of, of_rows

Rows: TypeAlias = Literal["forget", "retain", "unrelated"]
ROWS: tuple[Rows, ...] = ("forget", "retain", "unrelated")
UNRELATED = "world/general.json"


class Relearn(Attack):
    """Fine-tunes the model on a part of the forget rows, on retain rows, or on unrelated ones.

    What comes back is measured on the forget rows that were not trained on, all the while. Of retain and unrelated rows
    as many are drawn as there are forget rows; of a plain text a row is a piece of ``max_length`` tokens. All are asked
    as the forget rows are. A retain model that learns the same is the yardstick: what it learns is no recollection.
    Source: Hu 2024 (2406.13356); Deeb and Roger 2024 (2410.08827); steps and learning rate as in Dorna 2025
    (2506.12618).

    Args:
        rows: What is trained on; a way of its own each.
        share: Which share of the forget rows, at least one and not the last. With 1, and rows of forget alone, all of
            them, and what comes back is measured on all: that is to teach, not to bring back, so it does not count into
            robustness, but is what R is made of (`judge_metrics`).
        epochs: Passes over the rows.
        learning_rate: Of AdamW.
        batch_size: Rows a step; None: that of the run.
        lora: Rank of adapters that are trained instead of all weights; None: all weights.
        unrelated: Where unrelated rows come from; by default, general knowledge that ships with the package.
        points: At most so many points of the curve of what comes back.
        metrics: What is measured in the end, extraction_strength and probability among them; None: all that the data
            allow. Answers of the model's own take most of the time where they are long.

    Raises:
        UnlearunError: An argument is out of range.
    """

    def __init__(
        self,
        rows: Sequence[Rows] = ROWS,
        share: float = 0.1,
        epochs: int = 1,
        learning_rate: float = 2e-5,
        batch_size: int | None = None,
        lora: int | None = None,
        unrelated: Source = UNRELATED,
        points: int = 10,
        metrics: Sequence[str] | None = None,
    ) -> None:
        check_bounds(
            share=(share, 0.0),
            epochs=(epochs, 1),
            learning_rate=(learning_rate, 0.0),
            batch_size=(batch_size, 1),
            lora=(lora, 1),
            points=(points, 1),
        )
        if not learning_rate > 0:
            raise UnlearunError(f"learning_rate is {learning_rate}; it must be above 0, or nothing is learnt")
        if not 0 < share <= 1:
            raise UnlearunError(f"share is {share}; it must be above 0 and at most 1")
        if not rows:
            raise UnlearunError(f"rows is empty; name some of {', '.join(ROWS)}")
        for kind in rows:
            check_choice("rows", kind, ROWS)
        self.rows = tuple(dict.fromkeys(rows))
        if share == 1 and FORGET in self.rows and len(self.rows) > 1:
            raise UnlearunError(
                f"share is 1, which teaches all forget rows, and does not count into robustness; rows is then "
                f"[{FORGET}] alone: put {', '.join(kind for kind in self.rows if kind != FORGET)} into a config of "
                "their own"
            )
        self.behavioural = share < 1 or FORGET not in self.rows
        self.share = share
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.lora = lora
        self.unrelated = unrelated
        self.points = points
        self.metrics = check_metrics(metrics, self.measured)

    def run(self, victim: Victim) -> Outcome:
        """See `Attack`."""
        outcome = Outcome()
        for kind in self.rows:
            trained, kept = self._choose(victim, kind)
            title = self._title(victim, kind, len(trained))
            if not trained or not kept:
                outcome.skipped[title] = (
                    "there is no retain set"
                    if not trained
                    else "no forget row is left to measure: there is one alone, or the others say the same"
                )
                continue
            after, curve = self._relearn(victim, trained, kept)
            if math.isnan(mean_of(after, self.measured[1])):
                outcome.skipped[title] = (
                    f"the model broke as it learnt, so nothing can be said; lower learning_rate (now "
                    f"{self.learning_rate:g})"
                )
                continue
            outcome.variants[title] = after
            outcome.curves[title] = curve
        return outcome

    def check(self, victim: Victim) -> None:
        """See `Attack`."""
        for kind in self.rows:
            trained, _ = self._choose(victim, kind)
            if trained:
                _learnt(victim, trained, self.batch_size)

    def reads(self) -> Sequence[Source]:
        """See `Attack`."""
        return [self.unrelated] if "unrelated" in self.rows else []

    def _title(self, victim: Victim, kind: Rows, count: int) -> str:
        """Name a way by the rows that it trains on; of forget rows by their share, as it came out of whole rows."""
        if kind != FORGET:
            return f"on {kind} rows"
        share = count / len(victim.forget_examples)
        return "on all forget rows" if self.share == 1 else f"on {share:.3g} of the forget rows"

    def _choose(self, victim: Victim, kind: Rows) -> tuple[list[dict[str, str]], set[str]]:
        """Return the rows that are trained on, and the ids of the forget rows that are measured, which are others."""
        examples = victim.forget_examples
        draw = random.Random(victim.seed)
        every = {str(example.example_id) for example in examples}
        if kind == FORGET:
            pairs = _texts(victim.plain_data, victim.forget_set, examples)
            texts = dict(zip((str(one.example_id) for one in examples), pairs, strict=True))
            if self.share == 1:
                return [_row(victim, *pair) for pair in pairs], every
            # some are left to be measured
            count = max(1, min(round(self.share * len(examples)), len(examples) - 1))
            trained = [texts[str(one.example_id)] for one in draw.sample(examples, count)]
            kept = {key for key, pair in texts.items() if pair not in trained}
            return [_row(victim, *pair) for pair in trained], kept
        data, name = victim.plain_data, "retain"
        if kind == "unrelated":
            data, name = self._read_unrelated(victim), FORGET
        elif name not in data.sources:
            return [], every
        others = data.examples(name)
        some = draw.sample(others, min(len(others), len(examples)))
        return [_row(victim, *pair) for pair in _texts(data, name, some)], every

    def _read_unrelated(self, victim: Victim) -> UnlearningDataModule:
        try:
            data = victim.datamodule(forget=self.unrelated, evaluation={}, retain=None, **_PLAIN_KEYS)
            data.connect(victim.tokenizer, ())
        except UnlearunError as error:
            raise UnlearunError(str(error).replace("the forget set", "unrelated", 1)) from error
        return data

    def _relearn(
        self, victim: Victim, rows: list[dict[str, str]], kept: set[str]
    ) -> tuple[Any, list[tuple[int, float, float]]]:
        method = victim.load(FineTune, lora=LoRA(r=self.lora) if self.lora else None)
        method.optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": self.learning_rate}}
        batch_size = self.batch_size or victim.plain_data.batch_size
        steps = -(-len(rows) // batch_size) * self.epochs
        curve = Curve(self.measured, kept)
        trainer = victim.trainer(
            max_epochs=self.epochs,
            val_check_interval=max(1, -(-steps // self.points)),
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            callbacks=[curve],
        )
        trainer.fit(method, datamodule=_learnt(victim, rows, batch_size))
        before = [mean_of(victim.unlearned, column, kept) for column in self.measured]
        after = victim.measure_forgetting(method, self.metrics)
        points = [(0, before[0], before[1]), *curve.points]
        if points[-1][0] < trainer.global_step:
            first, second = (mean_of(after, column, kept) for column in self.measured)
            points.append((trainer.global_step, first, second))
        return of_rows(after, kept), points


class Curve(Callback):
    """Keeps what has come back by each validation.

    Args:
        measured: The two columns that are kept.
        kept: The ids of the rows that count.

    Attributes:
        points: The step, and the mean of each column.
    """

    def __init__(self, measured: tuple[str, str], kept: set[str]) -> None:
        self.measured = measured
        self.kept = kept
        self.points: list[tuple[int, float, float]] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep a point."""
        evaluation = getattr(pl_module, "evaluation", None)
        if evaluation is not None and trainer.state.fn == "fit":
            first, second = (mean_of(evaluation, column, self.kept) for column in self.measured)
            self.points.append((trainer.global_step, first, second))


# How the rows that ship with the package are read, whatever the keys of the victim's data are called.
_PLAIN_KEYS: Mapping[str, Any] = {
    "holdout": None,
    "utility": None,
    "question_key": "question",
    "answer_key": "answer",
    "text_key": "text",
    "alternate_key": None,
    "min_characters": 0,
    "root": None,
}


def _texts(data: UnlearningDataModule, name: str, examples: Sequence[Example]) -> list[tuple[str | None, str]]:
    """Return question and answer of each row, or no question and the text of a piece."""
    formatter = data.formatter_of(name)
    return [
        (one.item.question, one.item.answer if one.item.question is not None else answer_text(formatter, one))
        for one in examples
    ]


def _row(victim: Victim, question: str | None, answer: str) -> dict[str, str]:
    """Write a row as the forget set is read."""
    data = victim.plain_data
    keys = data.options[data.evaluated[victim.forget_set]].keys
    return {keys.text: answer} if question is None else {keys.question: question, keys.answer: answer}


def _learnt(victim: Victim, rows: list[dict[str, str]], batch_size: int | None) -> UnlearningDataModule:
    """Return data of which some rows are trained on, asked as the forget set is, and the forget set is measured.

    Args:
        victim: The model and its data.
        rows: What is trained on; texts are cut into rows already.
        batch_size: Rows a step; None for that of the run.

    Raises:
        UnlearunError: A row does not fit into the length of any set.
    """
    own = {name: value for name, value in victim.forget_source().items() if name in OPTIONS}
    # A row is as long as it was in its own set.
    longest = max(one.max_length for one in victim.plain_data.sets.formatters.values())
    own |= {"min_characters": 1, "joined": False, "max_length": max(longest, victim.plain_data.max_length)}
    with TemporaryDirectory() as folder:  # rows in memory could not carry the options of their set
        file = Path(folder) / "rows.json"
        file.write_text(json.dumps(rows), encoding="utf-8")
        data = victim.forget_data(
            CHEAP,
            forget=None,
            retain={"path": str(file), **own},
            batch_size=batch_size or victim.plain_data.batch_size,
            validation_metrics=list(CHEAP),
        )
        try:
            data.connect(victim.tokenizer, ("retain",))
        except UnlearunError as error:
            raise UnlearunError(str(error).replace(str(file), "the rows that are learnt")) from error
    return data
