"""What people look at: figures, tables and texts made of evaluations."""

from unlearun.report.summary import run_summary
from unlearun.report.tensorboard import log_evaluation

__all__ = ["log_evaluation", "run_summary"]
