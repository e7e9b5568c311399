"""AltPO: prefer plausible other answers to the one to be forgotten."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy

from unlearun.data import AlternateKind, UnlearningDataModule, alternate_texts
from unlearun.errors import UnlearunError, check_bounds
from unlearun.methods.dpo import DPO
from unlearun.models import AlternateSettings, ModelLike, own_alternates, read_alternates, write_alternates

log = logging.getLogger(__name__)

PROMPT = (
    "Question: {question}\nAnswer: {answer}\n"
    "Make up another answer to the question. It must sound plausible, and state other facts than the answer above. "
    "Write the new answer alone."
)


class AltPO(DPO):
    """Alternate preference optimization: DPO with other answers that sound right, beside the retain NLL.

    They come from the rows (``data.alternate_key``, one text or a list), or the reference, which is the model as it is
    at the start unless another is named, makes them up, once, before step 0; they stand in the run folder as
    ``alternates.json``, and a run that goes on reads them there. Of several to a row it has the next each time it is
    drawn, so an epoch shows one of them; that of the authors shows all.
    Source: Mekala 2024, "Alternate Preference Optimization for Unlearning Factual Knowledge in Large Language Models"
    (2409.13474). Five answers a row of up to 200 tokens, made at temperature 1, are the authors'; the prompt is ours.

    Args:
        model: A hub id, a folder, a GGUF file, ``pocket`` (ships with the package), or a model object.
        beta: Inverse temperature; lower lets the model move further from the reference.
        alternates: How many answers a row the model makes up, where the rows have none.
        alternate_tokens: How long they may be.
        alternate_prompt: How it is asked for them; {question} and {answer} stand for those of the row.
        kwargs: See `UnlearningMethod`.
    """

    alternate: ClassVar[AlternateKind | None] = "plausible"

    def __init__(
        self,
        model: ModelLike,
        beta: float = 0.1,
        alternates: int = 5,
        alternate_tokens: int = 200,
        alternate_prompt: str = PROMPT,
        **kwargs: Any,
    ) -> None:
        check_bounds(alternates=(alternates, 1), alternate_tokens=(alternate_tokens, 1))
        missing = [word for word in ("{question}", "{answer}") if word not in alternate_prompt]
        if missing:
            raise UnlearunError(f"alternate_prompt is {alternate_prompt!r}; it must hold {missing[0]}")
        super().__init__(model, beta=beta, **kwargs)
        self.alternates = alternates
        self.alternate_tokens = alternate_tokens
        self.alternate_prompt = alternate_prompt
        self._made_up: dict[tuple[str | None, str], list[str]] = {}

    def make_ready(self) -> None:
        """Give the data other answers where the rows have none."""
        super().make_ready()
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, UnlearningDataModule):
            return
        examples = data.examples("forget")
        if alternate_texts(examples, "plausible", data.seed) is not None:
            return
        keys = [(example.item.question, example.item.answer) for example in examples]
        if not all(key in self._made_up for key in keys):
            self._made_up = dict(zip(keys, self._find_alternates(data), strict=True))
        texts = [self._made_up[key] for key in keys]
        data.use_alternates(texts)
        if self.run_folder is not None and self.trainer.is_global_zero:
            write_alternates(self.run_folder, examples, texts)

    def _find_alternates(self, data: UnlearningDataModule) -> list[list[str]]:
        """Return other answers for each forget row: those of the run that goes on, or new ones."""
        trainer: Any = self.trainer
        examples = data.examples("forget")
        earlier = Path(trainer.ckpt_path).parent.parent if trainer.ckpt_path else None
        found: list[list[str]] | None = None if earlier is None else read_alternates(earlier, examples)
        found = trainer.strategy.broadcast(found)  # one choice for all processes
        if found is None and isinstance(trainer.strategy, FSDPStrategy):
            raise UnlearunError(
                f"under {type(trainer.strategy).__name__} the model cannot make up other answers before it is trained; "
                "use --trainer.strategy fsdp2, or name those of the rows with --data.alternate_key"
            )
        if found is None:
            log.info("making up %d other answers to %d questions, once", self.alternates, len(examples))
            # The others only where nothing is sharded: those that share a model must run it together.
            shared = isinstance(trainer.strategy, DDPStrategy)
            mine = examples[trainer.global_rank :: trainer.world_size] if shared else examples
            start = self._live_reference(keep=False)
            wanted = AlternateSettings(
                self.alternate_prompt, self.alternates, self.alternate_tokens, data.seed + trainer.global_rank * shared
            )
            with trainer.precision_plugin.forward_context(), start.running(self.device) as policy:
                own = own_alternates(policy, data, mine, wanted)
            shares = self._from_all(own) if shared else [trainer.strategy.broadcast(own)]
            found = [shares[i % len(shares)][i // len(shares)] for i in range(len(examples))]
        return found
