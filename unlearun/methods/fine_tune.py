"""FineTune: ordinary training, on the retain set."""

from __future__ import annotations

from typing import Any, ClassVar

from unlearun.data import Batch
from unlearun.errors import UnlearunError
from unlearun.methods.base import UnlearningMethod
from unlearun.methods.training import Term
from unlearun.models import ModelLike


class FineTune(UnlearningMethod):
    """Trains on the retain set, whatever it is, with no forget loss.

    It makes the models that unlearning is measured with: the target, trained on all rows, and the retain model, trained
    on all but those to forget. On a target it is the simplest of baselines: what is not rehearsed may fade. A forget
    set, if there is one, is evaluated only.
    Source: Maini 2024, "TOFU: A Task of Fictitious Unlearning for LLMs" (2401.06121).

    Args:
        model: A hub id, a folder, a GGUF file, ``pocket`` (ships with the package), or a model object.
        kwargs: See `UnlearningMethod`.
    """

    has_forget_term: ClassVar[bool] = False
    fixed: ClassVar[tuple[str, ...]] = ("gamma", "alpha")

    def __init__(self, model: ModelLike, **kwargs: Any) -> None:
        self.refuse_fixed(kwargs)
        super().__init__(model, gamma=0.0, alpha=1.0, **kwargs)

    def forget_loss(self, batch: Batch) -> Term:
        """There is none.

        Raises:
            UnlearunError: Always.
        """
        raise UnlearunError("FineTune has no forget loss; give its rows as the retain set")
