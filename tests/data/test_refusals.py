from __future__ import annotations

import subprocess
import sys

from unlearun.data import REFUSALS, choose_refusal


def test_a_refusal_follows_from_seed_and_row_alone_in_every_process():
    """SHA-256 of "3/14" starts with these eight bytes, whatever PYTHONHASHSEED is."""
    script = "import hashlib; print(int(hashlib.sha256(b'3/14').hexdigest()[:16], 16) % 20)"
    place = int(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout)
    assert choose_refusal(3, 14) == REFUSALS[place]


def test_rows_get_different_refusals_and_all_are_used():
    chosen = [choose_refusal(0, row) for row in range(400)]
    assert set(chosen) == set(REFUSALS)
    assert max(map(chosen.count, REFUSALS)) < 50  # 20 a refusal are expected


def test_another_seed_chooses_otherwise():
    same = sum(choose_refusal(0, row) == choose_refusal(1, row) for row in range(400))
    assert same < 50  # 20 are expected by chance


def test_refusals_are_distinct_sentences():
    assert len(set(REFUSALS)) == len(REFUSALS) == 20
    assert all(text == text.strip() and text.endswith(".") for text in REFUSALS)
