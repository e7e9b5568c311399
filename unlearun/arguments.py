"""The parser of the commands that need no torch."""

from __future__ import annotations

import argparse
from typing import NoReturn

from unlearun.errors import UnlearunError


class OneLineParser(argparse.ArgumentParser):
    """An argparse parser that says what is wrong in one line, as every other command does."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong.

        Args:
            message: What argparse found.

        Raises:
            UnlearunError: Always.
        """
        raise UnlearunError(f"{message} ({self.prog} --help)")
