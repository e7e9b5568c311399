"""The model that is attacked, the data that it was made to forget, and how both are measured."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from lightning.pytorch import Trainer, seed_everything

from unlearun import runs
from unlearun.attacks.facts import facts_of
from unlearun.attacks.found import found_at_the_end
from unlearun.data import Example, Row, UnlearningDataModule, read_rows
from unlearun.errors import UnlearunError
from unlearun.kinds import check_kinds
from unlearun.methods import UnlearningMethod
from unlearun.models import Quantisation, load_model, load_tokenizer
from unlearun.records import FORGET, Evaluation, as_forget, check_fit, find, mean_of, role_of, same_rows

log = logging.getLogger(__name__)

M = TypeVar("M", bound=UnlearningMethod)
# What membership attacks compare.
COMPARED = (FORGET, "holdout")
# Another processor, or precision, moves the mean of a metric by less.
SAME = 0.02
# What one forward over the rows' own answers gives.
CHEAP = ("extraction_strength", "exact_memorization", "probability")


class Victim:
    """A model that should have forgotten something.

    Args:
        model: A folder, a run folder or a hub id: what it is loaded from, anew for each attack that changes it.
        data: Arguments of `UnlearningDataModule`: what was forgotten and kept, and how it is measured.
        start: What was found before unlearning, if it is known.
        unlearned: What was found after it; None, or of other rows, is measured anew.
        precision: The Trainer's.
        dtype: What weights are kept in.
        trusted: Whether code that the model brings along may run.
        seed: Seeds all that is drawn.
        accelerator: The Trainer's.

    Raises:
        UnlearunError: There are no rows to forget.
    """

    def __init__(
        self,
        model: str,
        data: Mapping[str, Any],
        start: Evaluation | None = None,
        unlearned: Evaluation | None = None,
        precision: Any = "32-true",  # noqa: ANN401 - what Lightning's Trainer takes
        dtype: str = "float32",
        trusted: bool = False,
        seed: int = 0,
        accelerator: str = "auto",
    ) -> None:
        self.model = model
        self.accelerator = accelerator
        self.data = dict(data)
        self.precision = precision
        self.dtype = dtype
        self.trusted = trusted
        self.seed = seed
        self.given_start = start
        self._unlearned = unlearned
        check_kinds(UnlearningDataModule, self.data)
        evaluated = self.datamodule().evaluated
        name = find({name: name for name in evaluated}, FORGET)
        if name is None:
            raise UnlearunError(f"{model} was evaluated without a forget set, so there is nothing to bring back")
        self.forget_set = name

    # ---- what it is made of ---------------------------------------------------------------------------------

    @cached_property
    def tokenizer(self) -> Any:  # noqa: ANN401 - transformers has no common type
        """The model's tokenizer."""
        return load_tokenizer(self.model, self.trusted)

    @cached_property
    def plain_data(self) -> UnlearningDataModule:
        """The data as they were measured without an attack, made into token ids."""
        data = self.datamodule()
        data.connect(self.tokenizer, ())
        return data

    @property
    def forget_examples(self) -> list[Example]:
        """The forget rows that are evaluated, as token ids."""
        return self.plain_data.evaluated_examples(self.forget_set)

    def raw_forget_rows(self) -> list[Row]:
        """Return the forget rows as their file has them, with keys that no other part of the library reads."""
        data = self.plain_data
        return read_rows(data.sources[data.evaluated[self.forget_set]], f"the {self.forget_set} set")

    @cached_property
    def facts(self) -> dict[str, Any]:
        """See `facts_of`; found once, for it reads all weights."""
        return facts_of(self)

    def forget_source(self, **options: Any) -> dict[str, Any]:
        """Return where the evaluated forget rows come from, with further options of the set.

        Args:
            options: As a source may carry them, such as ``prefill``.
        """
        evaluation = self.data.get("evaluation")
        source = self.data.get(FORGET) if evaluation is None else evaluation[self.forget_set]
        named = {"path": source} if isinstance(source, str) else source
        if not isinstance(named, Mapping) or hasattr(named, "num_rows"):
            raise UnlearunError(f"the rows of {self.forget_set} are a Python object; an attack needs them in a file")
        return {**named, **options}

    def datamodule(self, **changes: Any) -> UnlearningDataModule:
        """Return the data, with other arguments where they are given.

        Args:
            changes: Arguments of `UnlearningDataModule`.
        """
        return UnlearningDataModule(**{**self.data, **changes})

    def forget_data(
        self, metrics: Sequence[str] | None, ways: Mapping[str, Mapping[str, Any]] | None = None, **changes: Any
    ) -> UnlearningDataModule:
        """Return data of which the forget rows alone are evaluated, without a word of what was said of them before.

        Args:
            metrics: What is measured; None for what the run measured.
            ways: Options of the forget set by the name of a set, one set a way to ask; None for it as it is.
            changes: Further arguments of `UnlearningDataModule`.
        """
        asked = {FORGET: {}} if ways is None else ways
        if metrics is not None:
            changes["final_metrics"] = list(metrics)
        return self.datamodule(
            evaluation={name: self.forget_source(**options) for name, options in asked.items()},
            retain_reference=None,
            overlap="allow",
            duplicates="allow",
            **changes,
        )

    def load(self, kind: type[M], quantisation: Quantisation | None = None, **settings: Any) -> M:
        """Load the model anew.

        Args:
            kind: What is to run it.
            quantisation: What its weights are kept in, if not as they are.
            settings: Arguments of the method.
        """
        seed_everything(self.seed, workers=True, verbose=False)
        loaded = load_model(self.model, self.dtype, trusted=self.trusted, quantisation=quantisation)
        return kind(loaded, tokenizer=self.tokenizer, **settings)

    # ---- measuring ------------------------------------------------------------------------------------------

    def trainer(self, **settings: Any) -> Trainer:
        """Return a Trainer that leaves nothing behind.

        Args:
            settings: Its further arguments.
        """
        with runs.making_trainer():
            return Trainer(
                accelerator=self.accelerator,
                devices=1,
                precision=self.precision,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                **settings,
            )

    def measure(self, method: UnlearningMethod, data: UnlearningDataModule) -> Evaluation:
        """Evaluate a model on some data, all of their final metrics.

        Args:
            method: The model.
            data: What it is measured on.
        """
        self.trainer().validate(method, datamodule=data, verbose=False)
        if method.evaluation is None:
            raise UnlearunError("nothing was evaluated")
        return method.evaluation

    def measure_fully(self, method: UnlearningMethod, metrics: Sequence[str] | None = None) -> Evaluation:
        """Evaluate a model as the run was evaluated at its end; the forget set is called ``forget``.

        Args:
            method: The model.
            metrics: What is measured; None for what the run measured.
        """
        data = self.datamodule() if metrics is None else self.datamodule(final_metrics=list(metrics))
        return as_forget(self.measure(method, data), self.forget_set)

    def measure_forgetting(self, method: UnlearningMethod, metrics: Sequence[str] | None = None) -> Evaluation:
        """Evaluate what a model knows of the forget set, beside rows that it never saw; the former is ``forget``.

        Args:
            method: The model.
            metrics: What is measured; None for all that the data allow.
        """
        given = self.data.get("evaluation")
        sources = given if given is not None else {name: self.data.get(name) for name in COMPARED}
        compared = {
            name: source for name, source in sources.items() if source is not None and role_of(name) in COMPARED
        }
        data = self.datamodule(evaluation=compared, final_metrics=None if metrics is None else list(metrics))
        return as_forget(self.measure(method, data), self.forget_set)

    @cached_property
    def unlearned(self) -> Evaluation:
        """What is found without an attack; the forget set is called ``forget``."""
        known = self._unlearned
        if known is not None and self._fits(known, self.plain_data.evaluated) and self._is_as_precise(known):
            found = as_forget(known, self.forget_set)
            if self._is_of_this_model(found):
                return found
            log.warning("%s is not the model that its run has evaluated at its end; it is measured anew", self.model)
        return self.measured_anew()

    def measured_anew(self) -> Evaluation:
        """Measure the model without an attack, whatever is known of it; the forget set is called ``forget``."""
        log.info("measuring %s without an attack", self.model)
        return self.measure_fully(self.load(UnlearningMethod))

    def _is_as_precise(self, known: Evaluation) -> bool:
        """Say whether an evaluation was computed in the precision of the attacks, as far as it tells."""
        return known.fingerprint.get("precision") in (None, str(self.trainer().precision))

    def fits_reference(self, reference: Evaluation, where: str) -> bool:
        """Say whether records of a retain model are of the rows that are evaluated here, asked in the same way.

        Args:
            reference: The records.
            where: Their file.
        """
        try:
            check_fit(self.plain_data.unmeasured(), reference, where)
        except UnlearunError as error:
            log.info("%s", error)
            return False
        return True

    def _is_of_this_model(self, known: Evaluation) -> bool:
        """Say whether an evaluation finds of the forget rows what the weights say, by one pass over them."""
        now = self.measure(self.load(UnlearningMethod), self.forget_data(CHEAP))
        pairs = [(mean_of(one, column) for one in (known, now)) for column in CHEAP]
        # a metric that the run did not measure is no sign of another model
        return all(not abs(before - after) > SAME for before, after in pairs)

    @cached_property
    def start(self) -> Evaluation | None:
        """What was found before unlearning, on the same rows; None where that is not known."""
        if self.given_start is None or not self._fits(self.given_start, [self.forget_set]):
            return None
        return as_forget(self.given_start, self.forget_set)

    @cached_property
    def said(self) -> dict[str, str]:
        """What the model answers, without an attack, by the id of the row."""
        known = _said(self.unlearned)
        if len(known) == len(self.forget_examples):
            return known
        return _said(self.measure(self.load(UnlearningMethod), self.forget_data(["rouge"])))

    @cached_property
    def said_at_start(self) -> dict[str, str] | None:
        """What the model before unlearning answers; None where that was not measured on all rows."""
        known = {} if self.start is None else _said(self.start)
        return known if len(known) == len(self.forget_examples) else None

    def instead(self, model: str) -> Victim:
        """Return another model with the data, the start and the settings of this one.

        Args:
            model: A folder, a run folder or a hub id.
        """
        settings = (self.precision, self.dtype, self.trusted, self.seed, self.accelerator)
        return Victim(model, self.data, self.given_start, found_at_the_end(Path(model)), *settings)

    def _fits(self, evaluation: Evaluation, sets: Iterable[str]) -> bool:
        """Say whether an evaluation is of the very rows of some sets, asked in the same way."""
        ours, theirs = self.plain_data.describe(), evaluation.fingerprint
        return (
            all(same_rows(ours, theirs, name) for name in sets)
            and ours["template"] == theirs.get("template")
            and ours["tokenizer"] == theirs.get("tokenizer")
            and ours["generation"] == theirs.get("generation")
        )


def _said(evaluation: Evaluation) -> dict[str, str]:
    """Return what was answered of the forget rows, as far as it was asked for."""
    rows = evaluation.examples.get(FORGET, {})
    return {key: str(row["generation"]) for key, row in rows.items() if row.get("generation") is not None}
