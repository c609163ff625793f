"""What a launch shows goes to a terminal: names and reasons are shown, never obeyed."""

import io
from pathlib import Path
from types import SimpleNamespace

from rich.console import Console

from decaylab.launch.progress import Screen, display
from decaylab.launch.report import LaunchReport, closing_lines

HOSTILE = "run \x1b[2J\x07\u202e"


class _Store:
    def folder(self, run):
        return Path("/nowhere") / run

    def rows(self, runs):
        return [SimpleNamespace(id=run, summary={"damaged": HOSTILE}) for run in runs]


def test_lines_and_the_screen_spell_what_a_terminal_would_obey(capsys):
    display(True).say(HOSTILE)
    said = capsys.readouterr().err
    assert said == "run \\x1b[2J\\x07\\u202e\n"
    out = io.StringIO()
    screen = Screen(Console(file=out, force_terminal=True, width=80, color_system=None))
    screen.say(HOSTILE)
    screen.close()
    assert "\\x1b[2J\\x07" in out.getvalue() and "\x1b[2J" not in out.getvalue() and "\x07" not in out.getvalue()


def test_the_closing_lines_too():
    report = LaunchReport(failed={"aa": f"{HOSTILE}\nand more"}, done=("bb",))
    lines = list(closing_lines(report, {"aa": HOSTILE, "bb": HOSTILE}, _Store()))
    assert not any({"\x1b", "\x07", "\u202e", "\n"} & set(line) for line in lines) and len(lines) == 3
