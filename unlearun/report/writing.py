"""The files of a report, beside what they tell of."""

from __future__ import annotations

from collections.abc import Sequence
from errno import EISDIR, ENOTDIR
from pathlib import Path

from unlearun.errors import UnlearunError
from unlearun.files import write_whole
from unlearun.report.card import write_card
from unlearun.report.markdown import comparison_markdown, run_markdown
from unlearun.report.page import comparison_page, run_page
from unlearun.report.reported_run import read_runs
from unlearun.report.values import to_csv

NAME = "report"
SUFFIXES = ("html", "md", "csv")


def write_report(folders: Sequence[Path], output: Path | None = None) -> Path:
    """Write ``report.html``, ``report.md`` and ``report.csv``, and for one run the card of the model that it left.

    Args:
        folders: One run folder, or several that are compared.
        output: Where to; None: into the run folder, or for several into the folder that holds them all.

    Returns:
        The page.

    Raises:
        UnlearunError: A folder holds no run, or its records cannot be read.
    """
    runs = read_runs(list(folders))
    where = output.expanduser() if output else runs[0].folder if len(runs) == 1 else shared_folder(list(folders))
    try:
        _check_place(where)
        if len(runs) == 1:
            page, text = run_page(runs[0]), run_markdown(runs[0])
            if output is None and runs[0].trained and (runs[0].folder / "model").is_dir():
                write_card(runs[0], runs[0].folder / "model")
        else:
            page, text = comparison_page(runs), comparison_markdown(runs)
        for suffix, content in (("md", text), ("csv", to_csv(runs)), ("html", page)):
            write_whole(where / f"{NAME}.{suffix}", content)
    except OSError as error:
        reason = error.strerror or error
        raise UnlearunError(
            f"the report cannot be written to {where}: {reason}; name another folder with --output"
        ) from error
    return where / f"{NAME}.html"


def _check_place(where: Path) -> None:
    """Check, before anything is drawn or written, that a folder can take a report."""
    if where.exists() and not where.is_dir():
        raise NotADirectoryError(ENOTDIR, "it is no folder")
    for suffix in SUFFIXES:
        if (where / f"{NAME}.{suffix}").is_dir():
            raise IsADirectoryError(EISDIR, f"{NAME}.{suffix} there is a folder")


def shared_folder(folders: Sequence[Path]) -> Path:
    """Return the folder that holds all; where that is the root of the disk, where the user is.

    Args:
        folders: Of runs.
    """
    parents = [folder.resolve().parents for folder in folders]
    shared = next(one for one in parents[0] if all(one in others for others in parents[1:]))
    return shared if shared != Path(shared.anchor) else Path()
