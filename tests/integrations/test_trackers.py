import math
from types import SimpleNamespace

import pytest

from decaylab.errors import DecaylabError
from decaylab.integrations import trackers

RECORDS = [
    {"step": 0, "weights/norm": 2.0, "weights/norm/matrix": 1.5, "timescale/steps": math.inf},
    {"step": 50, "weights/norm": 1.0, "weights/norm/matrix": 0.5, "timescale/steps": 10.0},
]


def _write(sink):
    for record in RECORDS:
        sink.write(record)
    sink.close()


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboardX", reason="needs the tensorboard extra")
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    _write(trackers.open_sink(f"tensorboard:{tmp_path}"))
    (file,) = tmp_path.glob("events.*")
    content, found = file.read_bytes(), {}
    while content:  # TensorBoard's record format: length, checksum, event, checksum
        length = int.from_bytes(content[:8], "little")
        assert int.from_bytes(content[8:12], "little") == masked_crc32c(content[:8])
        event = Event.FromString(content[12 : 12 + length])
        found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
        content = content[16 + length :]
    expected = {(k, r["step"]): v for r in RECORDS for k, v in r.items() if k != "step"}
    assert found == {key: v for key, v in expected.items() if math.isfinite(v)}  # the infinity is left out


def test_mlflow(tmp_path):
    mlflow = pytest.importorskip("mlflow", reason="needs the mlflow extra")
    address = f"sqlite:///{tmp_path}/runs.db"
    sink = trackers.MlflowSink(tracking_uri=address, experiment="watch", prefix="decaylab/", batch=2)
    _write(sink)
    client = mlflow.MlflowClient(tracking_uri=address)
    history = client.get_metric_history(sink.run_id, "decaylab/weights/norm/matrix")
    assert [(m.step, m.value) for m in history] == [(0, 1.5), (50, 0.5)]
    assert [m.step for m in client.get_metric_history(sink.run_id, "decaylab/timescale/steps")] == [50]
    assert client.get_run(sink.run_id).info.status == "FINISHED"
    again = trackers.MlflowSink(sink.run_id, tracking_uri=address)
    again.write({"step": 100, "lr": 0.1})
    again.close()
    assert client.get_metric_history(sink.run_id, "lr")[0].step == 100


@pytest.mark.filterwarnings("ignore")
def test_wandb(tmp_path):
    wandb = pytest.importorskip("wandb", reason="needs the wandb extra")
    settings = wandb.Settings(silent=True, x_disable_stats=True, x_disable_meta=True)
    run = wandb.init(mode="offline", project="watch", dir=str(tmp_path), settings=settings)
    sink = trackers.WandbSink(run, prefix="decaylab/")
    for record in RECORDS:
        sink.write(record)
    sink.close()
    assert run.summary["decaylab/weights/norm/matrix"] == 0.5 and run.summary["decaylab/step"] == 50
    run.finish()


def test_wandb_calls(monkeypatch):
    """The calls that a W&B run gets, without its package."""
    calls = []
    run = SimpleNamespace(
        define_metric=lambda key, step_metric=None: calls.append(("define", key, step_metric)),
        log=lambda values: calls.append(("log", values)),
        finish=lambda: calls.append(("finish",)),
    )
    monkeypatch.setattr(trackers, "optional", lambda name: SimpleNamespace(init=lambda **options: run))
    _write(trackers.open_sink("wandb:mine"))
    assert calls[0] == ("define", "step", None) and calls[-1] == ("finish",)
    assert ("define", "weights/norm", "step") in calls
    assert [c[1] for c in calls if c[0] == "log"] == RECORDS
    assert len([c for c in calls if c[0] == "define"]) == 4
    calls.clear()
    trackers.WandbSink(run).close()
    assert ("finish",) not in calls  # a run that somebody else opened stays open


def test_mlflow_batches(monkeypatch):
    """What is sent, without MLflow's package."""
    sent = []
    client = SimpleNamespace(log_batch=lambda run_id, metrics: sent.append(metrics), set_terminated=lambda run_id: None)
    fake = SimpleNamespace(
        MlflowClient=lambda tracking_uri: client, entities=SimpleNamespace(Metric=lambda *values: values)
    )
    monkeypatch.setattr(trackers, "optional", lambda name: fake)
    sink = trackers.MlflowSink("abc", batch=2)
    _write(sink)
    assert [len(batch) for batch in sent] == [2, 2, 1]  # the infinity is left out
    assert sent[0][0][:2] == ("weights/norm", 2.0) and sent[0][0][3] == 0
    with pytest.raises(DecaylabError, match="between 1 and 1000"):
        trackers.MlflowSink("abc", batch=5000)


def test_mistakes(monkeypatch):
    with pytest.raises(DecaylabError, match="unknown tracker 'wandv'; did you mean 'wandb'"):
        trackers.open_sink("wandv:x")
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
    with pytest.raises(DecaylabError, match=r"pip install 'decaylab\[tensorboard\]'"):
        trackers.open_sink("tensorboard:x")
