"""What people look at: figures, tables and texts made of evaluations."""

from unlearun.report.summary import run_summary
from unlearun.report.writing import write_report

__all__ = ["run_summary", "write_report"]
