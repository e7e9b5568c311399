"""What is said to people who run a command."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
from lightning_utilities.core.rank_zero import rank_zero_only

from unlearun.runs.run import _Told, quiet


def bare(monkeypatch):
    """Take away what other tests and pytest have set up, and return our logger."""
    logger = logging.getLogger("unlearun")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(rank_zero_only, "rank", 0, raising=False)
    logger.setLevel(logging.NOTSET)
    return logger


@pytest.fixture(autouse=True)
def leave_the_level():
    logger = logging.getLogger("unlearun")
    level = logger.level
    yield
    logger.setLevel(level)


def test_what_was_chosen_is_printed_once_by_the_first_process_and_warnings_by_all(capsys, monkeypatch):
    bare(monkeypatch)
    quiet.__wrapped__()
    quiet.__wrapped__()
    inner = logging.getLogger("unlearun.methods.referenced")
    inner.info("reference: %s", "a copy")
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    inner.info("reference: %s", "another")
    inner.warning("too long")
    assert capsys.readouterr().err == "reference: a copy\ntoo long\n"


@pytest.mark.parametrize("name", ["unlearun", None])
def test_a_program_with_logging_of_its_own_is_left_alone(monkeypatch, name):
    ours = bare(monkeypatch)
    own = logging.NullHandler()
    logging.getLogger(name).handlers.append(own)
    quiet.__wrapped__()
    assert not any(isinstance(handler, _Told) for handler in ours.handlers)
    assert ours.level == logging.NOTSET


def test_importing_says_nothing_and_sets_up_no_logging():
    code = (
        "import logging, unlearun, unlearun.api; "
        "assert not logging.getLogger('unlearun').handlers and not logging.getLogger().handlers; "
        "assert logging.getLogger('unlearun').level == logging.NOTSET"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
