"""What TensorBoard shows of an evaluation beside its curves: the generated answers, and figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger

from unlearun.records import Evaluation
from unlearun.report.cells import plain_cell
from unlearun.report.figures import likelihood_figure, roc_figure, truth_ratio_figure

SHOWN_ROWS = 20


def log_evaluation(loggers: Sequence[Logger], evaluation: Evaluation) -> None:
    """Write texts and figures to every TensorBoard logger; other loggers get the curves alone.

    Args:
        loggers: Those of the Trainer.
        evaluation: What was found.
    """
    boards = [logger.experiment for logger in loggers if isinstance(logger, TensorBoardLogger)]
    if not boards:
        return
    for name, examples in evaluation.examples.items():
        if table := answers_table(examples):
            for board in boards:
                board.add_text(f"answers/{name}", table, evaluation.step)
    figures = {
        "membership": roc_figure(evaluation),
        "likelihood": likelihood_figure(evaluation),
        "truth_ratio": truth_ratio_figure(evaluation),
    }
    for name, figure in figures.items():
        for board in boards if figure is not None else []:
            board.add_figure(name, figure, evaluation.step)


def answers_table(examples: dict[str, dict[str, Any]]) -> str:
    r"""Lay out questions, answers and generated texts in Markdown.

    Args:
        examples: The records of a set.

    Returns:
        A table of the first rows; empty where nothing was generated.

    >>> print(answers_table({"0": {"question": "Where?", "answer": "Oslo", "generation": "In Oslo | maybe"}}))
    | question | answer | generated |
    | --- | --- | --- |
    | Where? | Oslo | In Oslo \| maybe |
    """
    rows = [record for record in examples.values() if "generation" in record][:SHOWN_ROWS]
    if not rows:
        return ""
    lines = ["| question | answer | generated |", "| --- | --- | --- |"]
    for record in rows:
        cells = [str(record.get(key) or "(text)") for key in ("question", "answer", "generation")]
        lines.append("| " + " | ".join(plain_cell(cell) for cell in cells) + " |")
    return "\n".join(lines)
