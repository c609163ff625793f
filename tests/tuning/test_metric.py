"""Where a metric is read."""

import json
import math

import pytest

from decaylab import report
from decaylab.errors import DecaylabError
from decaylab.tuning import Metric
from decaylab.tuning.metric import LOG, REPORTS


def test_the_last_json_line_of_the_output_counts(tmp_path):
    (tmp_path / LOG).write_text('start\n{"loss": 3}\n{"other": 1}\n{"loss": 2.5, "lr": 1e-4}\n{broken\nbye\n')
    assert Metric().read(tmp_path) == {"value": 2.5, "lr": 1e-4}


def test_what_a_script_reports_comes_first(tmp_path, monkeypatch):
    (tmp_path / LOG).write_text('{"loss": 9}\n')
    monkeypatch.setenv("DECAYLAB_REPORT", str(tmp_path / REPORTS))
    report(step=1, loss=3.0)
    report(step=2, loss=math.inf, lr=0.1)
    assert Metric().read(tmp_path) == {"value": math.inf, "lr": 0.1}
    monkeypatch.delenv("DECAYLAB_REPORT")
    report(loss=1.0)  # nobody listens


@pytest.mark.parametrize(
    "name, content",
    [
        ("log.jsonl", '{"eval/loss": 3}\n{"eval/loss": 2}\n'),
        ("log.csv", "step,eval/loss\n1,3\n2,2\n3,\n"),
        ("result.json", '{"eval/loss": 2}'),
        ("trainer_state.json", '{"log_history": [{"eval/loss": 3}, {"eval/loss": 2}, {"loss": 7}]}'),
    ],
)
def test_files(name, content, tmp_path):
    (tmp_path / name).write_text(content)
    assert Metric.parse("eval/loss", f"{{out}}/{name}", None).read(tmp_path) == {"value": 2.0}


def test_a_regular_expression(tmp_path):
    (tmp_path / LOG).write_text("step 1: val loss 4.0\nstep 2: val loss 3.5\n")
    assert Metric.parse("loss", None, r"val loss (\S+)").read(tmp_path) == {"value": 3.5}
    with pytest.raises(DecaylabError, match="needs a group"):
        Metric.parse("loss", None, "val loss")
    with pytest.raises(DecaylabError, match="cannot be read"):
        Metric.parse("loss", None, "(")


def test_tensorboard(tmp_path):
    tensorboardX = pytest.importorskip("tensorboardX")
    writer = tensorboardX.SummaryWriter(str(tmp_path / "tb"))
    for step, value in enumerate((3.0, 2.0)):
        writer.add_scalar("eval/loss", value, step)
    writer.close()
    assert Metric.parse("eval/loss", "tensorboard:{out}/tb", None).read(tmp_path) == {"value": 2.0}


@pytest.mark.parametrize(
    "output, said",
    [("", "no metric 'loss'"), ('{"los": 1}', "there are los"), (json.dumps({"loss": "low"}), "is no number: 'low'")],
)
def test_a_metric_that_never_comes(output, said, tmp_path):
    (tmp_path / LOG).write_text(output)
    with pytest.raises(DecaylabError, match=said):
        Metric().read(tmp_path)
    with pytest.raises(DecaylabError, match="cannot be read"):
        Metric(source="file", place=str(tmp_path / "no.csv")).read(tmp_path)
