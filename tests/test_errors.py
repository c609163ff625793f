"""The line about an unknown name helps, however many names there are."""

import pytest

from decaylab.errors import DecaylabError, printable, unknown


@pytest.mark.parametrize(
    ("name", "choices", "said"),
    [
        ("fig11", ["fig1", "fig2"], "unknown thing 'fig11'; did you mean 'fig1' or 'fig2'? known: fig1, fig2"),
        ("zzz", ["b", "a"], "unknown thing 'zzz'; known: a, b"),
        ("x", [], "unknown thing 'x': there is none"),
        (
            "zzz",
            [f"a{i:02}" for i in range(50)],
            "unknown thing 'zzz'; 50 are known, such as a00, a01, a02, a03, a04, a05",
        ),
        ("other", [*(f"a{i:02}" for i in range(50)), "others"], "unknown thing 'other'; did you mean 'others'?"),
    ],
)
def test_the_line_about_an_unknown_name(name, choices, said):
    assert str(unknown("thing", name, choices)) == said


def test_a_long_value_is_not_echoed_whole():
    message = str(unknown("rule", "x" * 3_000_000, ["a", "b"]))
    assert len(message) < 400 and "..." in message
    assert len(str(DecaylabError("y " * 3_000_000))) <= 2000
    assert str(DecaylabError(f"cannot read {'y' * 3_000_000}: no")).startswith("cannot read yyy")
    assert len(str(DecaylabError(f"cannot read {'y' * 3_000_000}: no"))) < 120
    path = "/".join(["folder"] * 50)
    assert path in str(DecaylabError(f"there is no file {path}"))


def test_what_a_terminal_obeys_is_spelled():
    assert printable("a\x1b]0;title\x07\x9b31m\r\u202e\ud800b\n\tc é 漢 👍") == (
        "a\\x1b]0;title\\x07\\x9b31m\\r\\u202e\\ud800b\n\tc é 漢 👍"
    )
