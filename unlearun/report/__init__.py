"""What people look at: figures, tables and texts made of evaluations."""

from unlearun.report.reported_run import ReportedRun, read_runs, short_names
from unlearun.report.summary import run_summary
from unlearun.report.writing import shared_folder, write_report

__all__ = ["ReportedRun", "read_runs", "run_summary", "shared_folder", "short_names", "write_report"]
