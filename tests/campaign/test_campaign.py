"""The short form of the campaign: a few disturbances of every kind end bit for bit (`make campaign`: the long one)."""

import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_disturbed_runs_end_bit_for_bit():
    command = [sys.executable, "-m", "tests.campaign.campaign", "--kills", "3", "--suspensions", "2", "--flips", "1"]
    command += ["--full-disks", "1"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert ended.returncode == 0, ended.stdout + ended.stderr
    counts = re.search(r"(\d+) kills, (\d+) suspensions, (\d+) flips, (\d) full disks: .* bit for bit", ended.stdout)
    assert counts, ended.stdout
    kills, suspensions, flips, disks = map(int, counts.groups())
    assert kills >= 3 and suspensions >= 2 and flips >= 1
    assert disks == 1 or "full disks left out: " in ended.stdout
