"""``decaylab rules``: the overview, one rule, JSON, the docs page, and mistakes in one line."""

import json

from decaylab.cli import main
from decaylab.decay import build
from decaylab.decay.docs_page import page
from decaylab.decay.registry import ALIASES, TABLE, canonical


def test_the_overview_names_every_rule(capsys):
    assert main(["rules"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in TABLE)  # in a pipe nothing is folded


def test_one_rule_with_its_options(capsys):
    assert main(["rules", "weight-norm-control"]) == 0
    shown = capsys.readouterr().out
    assert "p <- p - k_t (1 - r ||p_0|| / ||p||) p" in shown
    assert all(word in shown for word in ("2311.11446", "ratio", "target", "max_lr", "schedule", "total_steps"))


def test_json(capsys):
    assert main(["rules", "--json"]) == 0
    assert [entry["name"] for entry in json.loads(capsys.readouterr().out)["rules"]] == list(TABLE)


def test_markdown(capsys, tmp_path):
    assert main(["rules", "--markdown"]) == 0
    assert capsys.readouterr().out == page()
    costs = tmp_path / "costs.csv"
    costs.write_text("rule,ratio,step_ms,torch_ms\ndecoupled,1.00,150.0,150.1\n")
    assert main(["rules", "--markdown", "--costs", str(costs)]) == 0
    assert "| decoupled | 1.00 | 150.0 | 150.1 |" in capsys.readouterr().out


def test_mistakes(capsys, tmp_path):
    assert main(["rules", "decopled"]) == 2
    assert "did you mean 'decoupled'" in capsys.readouterr().err
    assert main(["rules", "--markdown", "--costs", str(tmp_path / "none.csv")]) == 2
    assert "cannot read" in capsys.readouterr().err
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    assert main(["rules", "--markdown", "--costs", str(tmp_path / "bad.csv")]) == 2
    assert "is not a table of costs" in capsys.readouterr().err
    (tmp_path / "bad.csv").write_bytes(b"rule,\xff\x00")
    assert main(["rules", "--markdown", "--costs", str(tmp_path / "bad.csv")]) == 2
    assert "is not a table of costs" in capsys.readouterr().err


def test_published_names_are_names_of_rules(capsys):
    for alias, name in ALIASES.items():
        assert name in TABLE and canonical(alias) == canonical(alias.lower()) == name
        assert main(["rules", alias]) == 0
        shown = capsys.readouterr().out
        assert shown.startswith(f"{name}  ") and alias in shown
    assert type(build("AdamC", 0.1)) is type(build("corrected", 0.1))
    assert type(build("L2-SP", 0.1)).__name__ == "L2ToAnchor"
    assert canonical("loss-l2") == "loss-l2" and canonical("weight-norm-control") == "weight_norm_control"
