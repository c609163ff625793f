import csv
import json
import subprocess
import sys

import pytest

from decaylab.cli import main


def write(path, rows, delimiter=","):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


ROWS = [
    {"name": f"run{s}{wd}", "seed": s, "wd": wd, "lr": lr, "val/loss": 3 - wd + 0.1 * s + 0.003 * s * wd}
    for s in range(4)
    for wd in (0.0, 0.1)
    for lr in (0.01, 0.1)
]  # fmt: skip
LOWER = "val/loss is lower with wd=0.1 than with wd=0 where lr=0.1"


def test_a_table_is_judged_without_torch_or_pandas(tmp_path):
    table = write(tmp_path / "runs.csv", ROWS)
    code = (
        "import sys; from decaylab.cli import main; assert main(sys.argv[1:]) == 0; "
        "print(sorted({'torch', 'pandas', 'scipy', 'numpy', 'sqlalchemy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "judge", table, "--claim", LOWER], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert lines[0] == f"holds: {LOWER}"
    assert lines[1].startswith(
        "  final val/loss: WD 0.1 minus WD 0 (LR 0.1): -0.09955 (95 % interval -0.1002 to -0.0989"
    )
    assert lines[-1] == "[]"


def test_json_and_several_claims(tmp_path, capsys):
    table = write(tmp_path / "runs.tsv", ROWS, "\t")
    higher = LOWER.replace("lower", "higher by 0.01")
    assert main(["judge", table, "--claim", LOWER, "--claim", higher, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [j["verdict"] for j in found["judgements"]] == ["holds", "fails"]
    assert found["judgements"][0]["comparisons"][0]["seeds"] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say what is claimed"),
        (["--claim", "weight decay is good"], "has none of the known forms: METRIC is lower"),
        (["--claim", LOWER.replace("val/loss", "loss")], "unknown column 'loss'; did you mean 'val/loss'"),
        (["--claim", "val/loss is lower with wd=0.2 than with wd=0"], "unknown value of wd '0.2'"),
        (["--claim", "val/loss is lower with wd=0.1 than with wd=0"], "they differ in .*lr .0.01 and 0.1."),
        (["--claim", LOWER, "--seed", "sead"], "unknown column 'sead'; did you mean 'seed'"),
        (["--claim", LOWER.replace("val/loss", "name")], "the column name holds the text 'run00.1'"),
        (["--claim", "val/loss is lower with 'wd=0.1"], "cannot be read"),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_one_line(tmp_path, capsys, arguments, message):
    import re

    assert main(["judge", write(tmp_path / "runs.csv", ROWS), *arguments]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert re.search(message, err), err


def test_files_that_are_no_tables(tmp_path, capsys):
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "ragged.csv").write_text("seed,wd\n0\n")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00seed")
    for name, message in (
        ("empty.csv", "the table has no rows"),
        ("ragged.csv", "line 2 has not as many cells as the heading"),
        ("bytes.csv", "is not a table in CSV"),
        ("none.csv", "cannot read"),
    ):
        assert main(["judge", str(tmp_path / name), "--claim", LOWER]) == 2
        assert message in capsys.readouterr().err
