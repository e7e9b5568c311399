"""Sweeps whose runs take no time: fit is replaced by fake_fit.py, the check by an answer."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from sweep.fake_fit import LAUNCHER

from unlearun.__main__ import main

FACTS = {"methods": ["RMU"], "output_dir": "outputs", "utility": True}
# A job in the background of a shell is born deaf to Ctrl-C, and so would be what it starts.
DRIVER = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
import unlearun.sweep.check
from unlearun.__main__ import main
unlearun.sweep.check.ask = lambda *_: {FACTS!r}
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """The command in this process, in a fresh folder, with runs that take no time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unlearun.sweep.check.ask", lambda *_: FACTS)
    return lambda *arguments: main(["sweep", *arguments, "--launcher", LAUNCHER])


@pytest.fixture
def driven(tmp_path):
    """The same in a process of its own, which may be killed."""

    def run(*arguments, **variables):
        command = [sys.executable, "-c", DRIVER, "sweep", *arguments, "--launcher", LAUNCHER]
        environment = {**os.environ, **variables}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=50, check=False
        )

    return run
