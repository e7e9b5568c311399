"""The data of a run: which rows are forgotten, retained and evaluated, as loaders for Lightning."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch.utils.data import DataLoader

from unlearun.data.alternates import AlternateKind, alternate_texts
from unlearun.data.batch import Batch
from unlearun.data.cautions import cautions
from unlearun.data.eval_batches import DealtBatches, EvalBatches
from unlearun.data.examples import Example
from unlearun.data.fingerprint import describe_set, describe_template, describe_tokenizer
from unlearun.data.formatting import PROMPT, Formatter
from unlearun.data.loader import ResumableLoader
from unlearun.data.rows import Item, Keys
from unlearun.data.sampler import DrawnBatches, RowStream, StepSampler
from unlearun.data.set_options import SetOptions, split_source
from unlearun.data.sets import TRAINED, RowSets, name_evaluated, name_sources
from unlearun.data.sources import MissingFileError, Source, under_root
from unlearun.errors import UnlearunError, all_at_once, check_bounds, check_choice
from unlearun.records import Evaluation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

# How many forwards' questions are answered together: a token costs a pass over all weights, however few the rows.
GENERATED_TOGETHER = 2
APART = 1009  # the orders of two runs, by their seeds: more than there are sets

# One forward over the rows' own answers gives these.
CHEAP = ("perplexity", "probability", "exact_memorization", "extraction_strength")


class UnlearningDataModule(LightningDataModule):
    """Zips the forget and the retain set for training, and gives named sets to evaluate.

    Files are read and checked before any model is loaded. A source is a .json or .jsonl file, the id of a
    Hugging Face dataset, a mapping {path, name, split, revision}, or, in Python, a list of dicts or a
    datasets.Dataset; a path that does not exist here may name a file that ships with the package.

    A mapping may also say what holds for its own set alone: any of question_key, answer_key, alternate_key,
    paraphrase_key, perturbed_key, text_key, min_characters (1 or more), prompt_template, system_prompt, chat_template,
    chat_template_kwargs, max_length and max_new_tokens, as below, and six more. shots: a source of questions with
    answers that go before each question, as earlier turns of a chat or in the plain template; what the model says is
    cut off where it makes up a further one. question_template: what is asked, {question} standing for the row's
    question. prefill: what the model is made to begin its answer with. given_tokens: so many tokens of the answer
    itself are given away. continues: true where an answer goes on where its prompt stops, without a template, a space
    or an end between; it is compared with so many of its tokens as are generated. joined: true where plain texts are
    joined to one, with an empty line between, before it is cut into rows of max_length tokens.

    Args:
        forget: The rows to forget. None only for a method that trains on retain alone.
        retain: The rows to keep. None only for a method without a retain term.
        holdout: Rows that the model never saw, to compare the forgotten ones with.
        utility: Knowledge that must survive: a source, or a mapping of names to sources.
        evaluation: A mapping of names to sources, evaluated instead of forget, retain, holdout and utility; a set
            whose source is null is left out.
        question_key: The key of the question in a row.
        answer_key: The key of the answer.
        alternate_key: The key of another answer, or a list of them, for DPO and AltPO. None: refusals such as "I don't
            know" for the former, answers of the model's own for the latter.
        paraphrase_key: The key of the answer in other words.
        perturbed_key: The key of a list of wrong answers.
        text_key: The key of plain text, in rows without a question.
        min_characters: Plain text of fewer characters, space around it not counted, is left out: headings and empty
            lines, as WikiText has.
        max_length: The longest row in tokens, prompt and answer together.
        truncation: Whether a longer answer is cut, counted and warned about ("answer"), or an error ("error").
        prompt_template: What goes before an answer where the tokenizer has no chat template; {question} stands for
            the question.
        system_prompt: A system prompt for the chat template. None: the template's own.
        chat_template: Whether the tokenizer's chat template is used, if it has one.
        chat_template_kwargs: Further values of the chat template by name, such as date_string for Llama 3, which
            would otherwise write today's date into every prompt.
        batch_size: Rows of each set in a micro-batch of one process.
        eval_batch_size: Questions of a forward in evaluation, each with all its answers; twice as many are answered
            at a time. None: four times batch_size.
        anchor: The set that an epoch passes exactly once; the other is drawn without replacement.
        shuffle: Whether rows are shuffled for training.
        overlap: What happens when rows stand in forget and retain: nothing, a warning, or an error.
        duplicates: What happens when a row stands in a set twice: nothing, a warning, or an error.
        max_eval_rows: At most so many rows of a set are evaluated, chosen by seed. None: all.
        max_new_tokens: At most so many tokens of an answer are generated in evaluation.
        validation_metrics: What is measured at every validation of a fit but the first and the last: names, or the
            dotted path of a class. None: what one forward over the rows' own answers gives.
        final_metrics: What is measured at step 0, at the end, in validate and test. None: all that the data allow but
            what is opt-in; in a list, "all" stands for these.
        retain_reference: Records of a model that never saw the forget set, for ks_forget_quality, privleak and
            mia_reference: an eval/step=N.json, a run folder, or a published TOFU log.
        num_workers: Processes that make batches beside the training process.
        seed: What order, choice of rows and refusals follow from; the order follows from `run_seed`, too.
        cache: Where the token ids of large sets are kept for the next start: a folder; true for the one that the
            environment variable UNLEARUN_CACHE names, or else ~/.cache/unlearun ($XDG_CACHE_HOME/unlearun); false for
            nowhere. What a tokenizer without a Rust part makes is not kept.
        root: A folder that stands in for the hub: of a dataset's ``name: forget10`` it has forget10.json or .jsonl.

    Attributes:
        run_seed: The seed of the run (``seed_everything``), which moves the order of rows and neither which rows are
            evaluated nor refusals, so that runs of several seeds can be compared.
    """

    def __init__(
        self,
        forget: Source | None = None,
        retain: Source | None = None,
        holdout: Source | None = None,
        utility: Source | None = None,
        evaluation: dict[str, Source | None] | None = None,
        question_key: str = "question",
        answer_key: str = "answer",
        alternate_key: str | None = None,
        paraphrase_key: str = "paraphrased_answer",
        perturbed_key: str = "perturbed_answer",
        text_key: str = "text",
        min_characters: int = 0,
        max_length: int = 512,
        truncation: Literal["answer", "error"] = "answer",
        prompt_template: str = PROMPT,
        system_prompt: str | None = None,
        chat_template: bool = True,
        chat_template_kwargs: dict[str, Any] | None = None,
        batch_size: int = 8,
        eval_batch_size: int | None = None,
        anchor: Literal["forget", "retain"] = "forget",
        shuffle: bool = True,
        overlap: Literal["allow", "warn", "error"] = "warn",
        duplicates: Literal["allow", "warn", "error"] = "warn",
        max_eval_rows: int | None = 400,
        max_new_tokens: int = 48,
        validation_metrics: list[str | dict[str, Any]] | None = None,
        final_metrics: list[str | dict[str, Any]] | None = None,
        retain_reference: str | None = None,
        num_workers: int = 0,
        seed: int = 0,
        cache: bool | str = True,
        root: str | None = None,
    ) -> None:
        super().__init__()
        check_bounds(
            min_characters=(min_characters, 0),
            max_length=(max_length, 2),
            batch_size=(batch_size, 1),
            eval_batch_size=(eval_batch_size, 1),
            max_eval_rows=(max_eval_rows, 1),
            max_new_tokens=(max_new_tokens, 1),
            num_workers=(num_workers, 0),
        )
        check_choice("truncation", truncation, ("answer", "error"))
        check_choice("anchor", anchor, TRAINED)
        check_choice("overlap", overlap, ("allow", "warn", "error"))
        check_choice("duplicates", duplicates, ("allow", "warn", "error"))
        named = name_sources(forget, retain, holdout, utility)
        # What each evaluated name stands for: a set of `sources`, or a source of its own beside them.
        self.sources, self.evaluated = name_evaluated(named, evaluation)
        self.common = SetOptions(
            Keys(question_key, answer_key, alternate_key, paraphrase_key, perturbed_key, text_key),
            min_characters,
            prompt_template=prompt_template,
            system_prompt=system_prompt,
            chat_template=chat_template,
            chat_template_kwargs=chat_template_kwargs,
            max_new_tokens=max_new_tokens,
        )
        self.options: dict[str, SetOptions] = {}
        self._split_sources(root)
        self.sets = RowSets(self.sources, self.options, overlap, seed, duplicates, cache)
        self.max_length = max_length
        self.truncation = truncation
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.anchor = anchor
        self.shuffle = shuffle
        self.max_eval_rows = max_eval_rows
        self.validation_metrics = list(CHEAP) if validation_metrics is None else validation_metrics
        self.final_metrics = final_metrics
        self.retain_reference = retain_reference
        self.num_workers = num_workers
        self.seed = seed
        self.run_seed = 0
        self.formatter: Formatter | None = None
        self.trained: tuple[str, ...] = TRAINED
        self._alternates: list[list[Example]] | None = None
        self._described: dict[str, Any] | None = None
        self._said: dict[str, None] = {}
        self._connected: tuple[Any, tuple[str, ...], AlternateKind | None] | None = None

    # ---- what the run supplies ------------------------------------------------------------------------------

    def connect(
        self,
        tokenizer: PreTrainedTokenizerBase,
        trained: Sequence[str] = TRAINED,
        alternate: AlternateKind | None = None,
    ) -> None:
        """Take what the method supplies, and make token ids of all rows.

        Under a Trainer this happens by itself.

        Args:
            tokenizer: The model's tokenizer.
            trained: The sets that the method trains on: forget, retain or both.
            alternate: Which other answers forget rows need, if any: see `alternate_texts`.

        Raises:
            UnlearunError: A set that the method needs is missing, or a row cannot be kept.
        """
        self._connected = (tokenizer, tuple(trained), alternate)
        self._described = None
        self.trained = tuple(trained)
        self.read()
        for name in self.trained:
            if name not in self.sources:
                raise UnlearunError(f"the method trains on the {name} set, but there is none; add --data.{name} FILE")
        refuse_long = self.truncation == "error"
        self.formatter = self.common.formatter(tokenizer, self.max_length, refuse_long)
        self.sets.format(tokenizer, self.max_length, refuse_long)
        self._alternates = None
        if alternate is not None and "forget" in self.trained:
            texts = alternate_texts(self.examples("forget"), alternate, self.seed)
            if texts is not None:
                self.use_alternates(texts)

    def read(self) -> dict[str, list[Item]]:
        """Read and check all files; cheap when called again.

        Returns:
            The rows of each set.

        Raises:
            UnlearunError: A file is missing, empty or broken, or rows lack what they need.
        """
        return self.sets.read()

    def examples(self, name: str) -> list[Example]:
        """Return the rows of a set as token ids, once connected."""
        return self.sets.examples(name)

    def alternates(self) -> list[Example] | None:
        """Return the forget rows with all their alternate answers, if the method needs them and they are known."""
        return None if self._alternates is None else [one for row in self._alternates for one in row]

    def use_alternates(self, texts: Sequence[Sequence[str]]) -> None:
        """Take alternate answers for the forget rows; of several to a row it has the next each time it is drawn.

        Args:
            texts: At least one for each row.

        Raises:
            UnlearunError: Answers that cannot be kept, all at once.
        """
        self._alternates = self.sets.format_alternates(texts)

    def evaluated_examples(self, name: str) -> list[Example]:
        """Return the rows evaluated under a name: all, or a choice by seed, in the order of the set."""
        return self.sets.choose(self.evaluated[name], self.max_eval_rows)

    def formatter_of(self, name: str) -> Formatter:
        """Return what made the token ids of a set, once connected.

        Args:
            name: An evaluated or trained set.
        """
        self._formatter()
        return self.sets.formatters[self.evaluated.get(name, name)]

    def max_new_tokens(self, name: str) -> int:
        """Return how many tokens of an answer are generated at most.

        Args:
            name: An evaluated set.
        """
        return self.options[self.evaluated[name]].max_new_tokens

    def drawn(self, name: str) -> list[Example]:
        """Return the rows of a trained set that this process draws in the fit of its Trainer, or all if none is told.

        Args:
            name: forget or retain.
        """
        examples, trainer = self.examples(name), self.trainer
        epochs = 0 if trainer is None else trainer.max_epochs or 0
        endless = trainer is None or max(trainer.max_steps, epochs) <= 0
        if trainer is None or endless or trainer.overfit_batches:  # type: ignore[attr-defined]
            return list(examples)
        left = trainer.max_steps * trainer.accumulate_grad_batches if trainer.max_steps >= 0 else float("inf")
        sampler, rows = self._sampler(name), set[int]()
        for epoch in range(epochs) if epochs > 0 else count():
            sampler.set_epoch(epoch)
            for draw in sampler:
                if left <= 0 or len(rows) == len(examples):
                    return [examples[row] for row in sorted(rows)]
                rows.update(draw.rows)
                left -= 1
        return [examples[row] for row in sorted(rows)]

    @property
    def questions_per_batch(self) -> int:
        """How many questions a forward of an evaluation takes."""
        return self.eval_batch_size or 4 * self.batch_size

    @property
    def pad_id(self) -> int:
        """What stands in padding."""
        formatter = self._formatter()
        pad = formatter.tokenizer.pad_token_id
        return int(pad) if pad is not None else formatter.end_id

    @property
    def longest_row(self) -> int:
        """How many tokens the longest row has, prompt and answer together."""
        return max(len(row.input_ids) for name in self.sources for row in self.examples(name))

    @property
    def highest_token(self) -> int:
        """The highest id that any row has."""
        return max(max(row.input_ids) for name in self.sources for row in self.examples(name))

    def describe(self) -> dict[str, Any]:
        """Say what is evaluated, how its rows were made, and what was warned of, for a record's fingerprint."""
        if self._described is None:
            self._described = self._describe()  # it reads every row and the whole vocabulary, so once
        return {**deepcopy(self._described), "cautions": [*self.sets.cautions, *self._said]}

    def unmeasured(self) -> Evaluation:
        """Return an evaluation of these rows before anything is measured: their answers, and how they are asked."""
        examples: dict[str, dict[str, dict[str, Any]]] = {
            name: {str(row.example_id): {"answer": row.item.answer} for row in self.evaluated_examples(name)}
            for name in self.evaluated
        }
        return Evaluation(0, examples=examples, fingerprint=self.describe())

    def _describe(self) -> dict[str, Any]:
        formatter = self._formatter()
        sets = {
            name: describe_set(name, self.sources[source], self.evaluated_examples(name))
            for name, source in self.evaluated.items()
        }
        for name, found in sets.items():  # what others are asked stands below
            if self.formatter_of(name) != formatter:
                found["template"] = describe_template(self.formatter_of(name))
            if self.max_new_tokens(name) != self.common.max_new_tokens:
                found["generation"] = {"max_new_tokens": self.max_new_tokens(name)}
        return {
            "sets": sets,
            "template": describe_template(formatter),
            "tokenizer": describe_tokenizer(formatter),
            "generation": {"max_new_tokens": self.common.max_new_tokens},
        }

    # ---- Lightning's hooks ----------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Read, check and format all rows, before any model is loaded and anything is written."""
        self.read()
        self._connect_to_trainer()

    def setup(self, stage: str) -> None:
        """Connect to the method that the Trainer runs, and say what is evaluated.

        Args:
            stage: fit, validate, test or predict.
        """
        trainer: Any = self.trainer
        self._connect_to_trainer()
        if self.formatter is None:
            raise UnlearunError(
                "the datamodule does not know the tokenizer; call data.connect(tokenizer) before the Trainer runs"
            )
        if trainer is not None and trainer.overfit_batches and trainer.accumulate_grad_batches * trainer.world_size > 1:
            raise UnlearunError("overfit_batches repeats whole batches; use it on one device without accumulation")
        for name in self.evaluated:
            total, chosen = len(self.examples(self.evaluated[name])), len(self.evaluated_examples(name))
            if chosen < total:
                log.warning("%s: %d of %d rows are evaluated (max_eval_rows)", name, chosen, total)
        evaluated = {name: self.evaluated_examples(name) for name in self.evaluated}
        whole = {name: self.max_new_tokens(name) for name in evaluated if not self.formatter_of(name).continues}
        for caution in cautions(evaluated, whole):
            if caution not in self._said:  # not again when a fit ends with a validation
                log.warning("%s", caution)
                self._said[caution] = None

    def train_dataloader(self) -> CombinedLoader:
        """Return batches of forget and retain side by side, as many as the anchored set has."""
        loaders = {name: self._train_loader(name) for name in self.trained}
        return CombinedLoader(loaders, mode="min_size")

    def val_dataloader(self) -> dict[str, DataLoader[Batch]]:
        """Return a loader for each evaluated set."""
        return {name: self._eval_loader(name) for name in self.evaluated}

    def test_dataloader(self) -> dict[str, DataLoader[Batch]]:
        """Return a loader for each evaluated set."""
        return self.val_dataloader()

    def predict_dataloader(self) -> list[DataLoader[Batch]]:
        """Return a loader for each evaluated set, in the order of ``evaluated``."""
        return list(self.val_dataloader().values())

    # ---- inside ---------------------------------------------------------------------------------------------

    def _split_sources(self, root: str | None) -> None:
        """Take from each source what it says of its own set alone, and let a folder stand in for the hub."""
        missing: list[str] = []
        for name, source in self.sources.items():
            try:
                self.sources[name], self.options[name] = self._own_options(source, root, f"the {name} set")
            except MissingFileError as error:  # all that a folder lacks are said at once
                missing.append(str(error))
        if missing:
            raise UnlearunError(missing[0]) if len(missing) == 1 else all_at_once(missing, f"data.root {root}")

    def _own_options(self, source: Source, root: str | None, where: str) -> tuple[Source, SetOptions]:
        source, options = split_source(source, self.common, where)
        if root is not None:
            source = under_root(source, root, where)
            if options.shots is not None:
                options = replace(options, shots=under_root(options.shots, root, f"the shots of {where}"))
        return source, options

    def _connect_to_trainer(self) -> None:
        trainer: Any = self.trainer
        method: Any = trainer.lightning_module if trainer is not None else None
        if method is not None and hasattr(method, "trained_sets"):
            trained = method.trained_sets if trainer.state.fn == "fit" else ()
            wanted = (method.tokenizer, trained, method.alternate)
            if wanted != self._connected:
                self.connect(*wanted)

    def _formatter(self) -> Formatter:
        if self.formatter is None:
            raise UnlearunError("connect the datamodule to a tokenizer first")
        return self.formatter

    def _train_loader(self, name: str) -> DataLoader[Batch]:
        batches = DrawnBatches(self.examples(name), self.pad_id, self._alternates_of(name), self.batch_size)
        return ResumableLoader(batches, sampler=self._sampler(name), **self._loading())

    def _alternates_of(self, name: str) -> list[list[Example]] | None:
        return self._alternates if name == "forget" else None

    def _sampler(self, name: str) -> StepSampler:
        examples, alternates = self.examples(name), self._alternates_of(name)
        anchor = self.anchor if self.anchor in self.trained else self.trained[0]
        trainer = self.trainer
        sampler = StepSampler(
            [example.labelled for example in examples],
            RowStream(len(examples), self.seed + TRAINED.index(name) + APART * self.run_seed, self.shuffle),
            len(self.examples(anchor)),
            self.batch_size,
            trainer.accumulate_grad_batches if trainer is not None else 1,
            trainer.global_rank if trainer is not None else 0,
            trainer.world_size if trainer is not None else 1,
            None if alternates is None else [[example.labelled for example in row] for row in alternates],
        )
        limit = trainer.limit_train_batches if trainer is not None else None
        sampler.most = limit if isinstance(limit, int) or limit is None else int(limit * len(sampler))
        return sampler

    def _eval_loader(self, name: str) -> DataLoader[Batch]:
        formatter, trainer = self.formatter_of(name), self.trainer
        examples = self.evaluated_examples(name)
        batches = EvalBatches(examples, formatter, self.pad_id, GENERATED_TOGETHER * self.questions_per_batch)
        if batches.left_out:
            caution = (
                f"{name}: {batches.left_out} paraphrased and wrong answers are longer than max_length="
                f"{self.formatter_of(name).max_length} tokens and were left out"
            )
            log.warning("%s", caution)
            self._said[caution] = None
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)
        return DataLoader(batches, sampler=DealtBatches(len(batches), rank, world_size), **self._loading())

    def _loading(self) -> dict[str, Any]:
        return {
            "batch_size": None,
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
            # Or each pass would take a number of the global one, and a run that goes on would draw others.
            "generator": torch.Generator(),
        }
