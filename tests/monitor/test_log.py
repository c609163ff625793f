import json
import time

import pandas as pd
import pytest
import torch
from tests.support.processes import start
from torch import nn

from decaylab import attach, watch
from decaylab.decay import Decoupled
from decaylab.errors import DecaylabError
from decaylab.probes import PROBES

NO_LOSS = [name for name, row in PROBES.items() if "loss" not in row.needs]


def _net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3))


def _data(step):
    return torch.randn(16, 6, generator=torch.Generator().manual_seed(step))


def _train(net, optimizer, steps=12, microbatches=1, scaler=None, forward=None, schedule=None):
    forward = forward or net
    for step in range(steps):
        for part in _data(step).chunk(microbatches):
            loss = forward(part).square().mean() / microbatches
            (scaler.scale(loss) if scaler else loss).backward()
        if scaler:
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()
        optimizer.zero_grad()
        if schedule:
            schedule.step()
    return net


def _adamw(net, **options):
    return torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.1, **options)


def test_records_come_every_so_many_steps_and_weights_are_bit_equal():
    plain = _net()
    _train(plain, _adamw(plain))
    net = _net()
    optimizer = _adamw(net)
    log = watch(net, optimizer, every=5, probes=NO_LOSS)
    _train(net, optimizer)
    assert [record["step"] for record in log.records] == [0, 5, 10] and log.step == 12
    for a, b in zip(plain.parameters(), net.parameters(), strict=True):
        assert torch.equal(a, b)
    log.remove()
    assert not optimizer._optimizer_step_pre_hooks and not optimizer._optimizer_step_post_hooks
    assert not any(p._backward_hooks or p._post_accumulate_grad_hooks for p in net.parameters())
    _train(net, optimizer)
    assert len(log.records) == 3


@pytest.mark.parametrize("circumstance", ["accumulation", "scaler", "fused scaler", "fused", "compiled", "foreach off"])
def test_same_numbers_in_every_circumstance(circumstance):
    """The same training, run another way, gives the records of the plain run."""
    net = _net()
    optimizer = _adamw(net)
    expected = watch(net, optimizer, every=4)
    _train(net, optimizer)
    other = _net()
    options = {"fused": {"fused": True}, "fused scaler": {"fused": True}, "foreach off": {"foreach": False}}
    optimizer = _adamw(other, **options.get(circumstance, {}))
    forward = torch.compile(other, backend="eager") if circumstance == "compiled" else None
    log = watch(forward or other, optimizer, every=4)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12) if "scaler" in circumstance else None
    _train(other, optimizer, microbatches=4 if circumstance == "accumulation" else 1, scaler=scaler, forward=forward)
    for a, b in zip(expected.records, log.records, strict=True):
        assert a == pytest.approx(b, rel=2e-4)


def test_a_step_skipped_by_the_scaler_is_neither_recorded_nor_counted():
    net = _net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.1)
    log = watch(net, optimizer, every=1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for step in range(4):
        scaler.scale(net(_data(step)).square().mean() * (torch.inf if step == 1 else 1)).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    assert len(log.records) == 3
    assert log.records[-1]["timescale/passed"] == pytest.approx(0.03)


def test_a_fused_step_that_is_skipped_inside_the_kernel_passes_no_time():
    net = _net()
    optimizer = _adamw(net, fused=True)
    log = watch(net, optimizer, every=1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for step in range(4):
        scaler.scale(net(_data(step)).square().mean() * (torch.inf if step == 1 else 1)).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    assert log.records[1]["update/norm"] == 0
    assert log.records[-1]["timescale/passed"] == pytest.approx(0.003)


def test_the_first_record_is_the_same_whether_a_rule_or_the_log_came_first():
    found = {}
    for order in ("rule first", "log first"):
        net = _net()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        if order == "rule first":
            attach(optimizer, Decoupled(1.0))
        log = watch(net, optimizer, every=1)
        if order == "log first":
            attach(optimizer, Decoupled(1.0))
        _train(net, optimizer, steps=2)
        found[order] = log.records
    assert found["rule first"] == found["log first"]
    assert found["log first"][0]["update/norm"] > 0.1 * found["log first"][0]["weights/norm"] / 1.1
    assert 0 < found["log first"][0]["update/decay_share"] < 1


def test_closures():
    net = _net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.1)
    log = watch(net, optimizer, every=1)

    def closure():
        optimizer.zero_grad()
        loss = net(_data(0)).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    gradients = torch.cat([p.grad.reshape(-1) for p in net.parameters()])
    assert log.records[0]["gradients/norm"] == pytest.approx(float(gradients.norm()), rel=1e-6)
    lbfgs = torch.optim.LBFGS(net.parameters(), max_iter=3)
    with watch(net, lbfgs, every=1) as log:
        lbfgs.step(closure)
    assert log.records[0]["update/norm"] > 0


def test_schedules_and_groups():
    net = _net()
    groups = [
        {"params": [net[0].weight], "weight_decay": 0.2},
        {"params": [net[3].weight], "weight_decay": 0.4, "lr": 0.02},
        {"params": [net[0].bias, net[3].bias, *net[1].parameters()], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.5, total_iters=10)
    log = watch(net, optimizer, every=5)
    _train(net, optimizer, steps=11, schedule=schedule)
    factors = [1 - 0.05 * step for step in range(11)]
    assert log.records[-1]["timescale/passed/matrix"] == pytest.approx(0.002 * sum(factors))
    assert log.records[-1]["timescale/passed/head"] == pytest.approx(0.008 * sum(factors))
    assert log.records[-1]["timescale/steps/head"] == pytest.approx(1 / 0.004)


def test_table_files_and_chart(tmp_path):
    net = _net()
    optimizer = _adamw(net)
    log = watch(net, optimizer, every=2)
    assert list(log.table().columns) == ["step"] and log.table().empty
    with pytest.raises(DecaylabError, match="nothing is recorded yet"):
        log.plot()
    _train(net, optimizer)
    table = log.table()
    assert list(table["step"]) == [0, 2, 4, 6, 8, 10] and {"weights/norm/matrix", "update/angular"} <= set(table)
    pd.testing.assert_frame_equal(pd.read_csv(log.save(tmp_path / "a" / "log.csv")), table)
    pd.testing.assert_frame_equal(pd.read_parquet(log.save(tmp_path / "log.parquet")), table)
    assert json.loads(log.save(tmp_path / "log.json").read_text())[1]["step"] == 2
    with pytest.raises(DecaylabError, match=r"not as 'log\.txt'"):
        log.save(tmp_path / "log.txt")
    specification = log.plot().to_dict()
    assert len(specification["vconcat"]) == 4
    assert len(log.plot(["weights/max"]).to_dict()["vconcat"]) == 1
    with pytest.raises(DecaylabError, match="unknown key 'weight/max'; did you mean 'weights/max'"):
        log.plot(["weight/max"])
    log.plot().save(tmp_path / "log.svg")
    assert (tmp_path / "log.svg").read_text().startswith("<svg")


def test_state_survives_an_interruption():
    net = _net()
    optimizer = _adamw(net)
    whole = watch(net, optimizer, every=3)
    _train(net, optimizer, steps=12)
    net = _net()
    optimizer = _adamw(net)
    first = watch(net, optimizer, every=3)
    _train(net, optimizer, steps=7)
    state = json.loads(json.dumps(first.state_dict()))
    first.remove()
    second = watch(net, optimizer, every=3)
    second.load_state_dict(state)
    for step in range(7, 12):
        net(_data(step)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert second.records == whole.records


def test_sinks_get_every_record_and_are_closed():
    class Memory:
        def __init__(self):
            self.records, self.closed = [], False

        def write(self, record):
            self.records.append(dict(record))

        def close(self):
            self.closed = True

    net, sink = _net(), Memory()
    optimizer = _adamw(net)
    with watch(net, optimizer, every=5, sinks=[sink]) as log:
        _train(net, optimizer)
    assert sink.records == log.records and sink.closed


def test_data_parallel_wrapper():
    net = _net()
    optimizer = _adamw(net)
    expected = watch(net, optimizer, every=4)
    _train(net, optimizer)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        other = nn.parallel.DistributedDataParallel(_net())
        optimizer = _adamw(other)
        log = watch(other, optimizer, every=4, probes=NO_LOSS)
        _train(other, optimizer, microbatches=2)
    finally:
        # The wrapper is the last owner of the group, and ends it while it holds the interpreter. Gloo's thread needs
        # the interpreter to let go of the last exchange: it gets it here, or both would wait for ever.
        time.sleep(0.1)
        torch.distributed.destroy_process_group()
    for a, b in zip(expected.records, log.records, strict=True):
        assert {k: v for k, v in b.items() if k in a} == pytest.approx(a, rel=2e-4)
        assert b["noise/microbatch/variance"] > 0


def _data_parallel(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    net = nn.parallel.DistributedDataParallel(_net())
    optimizer = _adamw(net)
    log = watch(net, optimizer, every=4, probes=NO_LOSS)
    for step in range(12):
        parts = _data(step).chunk(4)
        with net.no_sync():
            (net(parts[rank]).square().mean() / 2).backward()
        (net(parts[2 + rank]).square().mean() / 2).backward()
        optimizer.step()
        optimizer.zero_grad()
    log.save(f"{folder}/{rank}.json")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_data_parallel_processes_agree_with_one(tmp_path):
    start(_data_parallel, (str(tmp_path),), 2)
    net = _net()
    optimizer = _adamw(net)
    log = watch(net, optimizer, every=4)
    _train(net, optimizer)
    both = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    for expected, first, second in zip(log.records, *both, strict=True):
        for key, value in expected.items():
            assert first[key] == second[key] == pytest.approx(value, rel=2e-4)
        assert first["noise/microbatch/variance"] > 0


def _sharded(rank, folder):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    net = fully_shard(_net(), mesh=init_device_mesh("cpu", (2,)))
    optimizer = _adamw(net)
    log = watch(net, optimizer, every=4, probes=NO_LOSS)
    _train(net, optimizer)
    log.save(f"{folder}/{rank}.json")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_sharded_processes_agree_with_one(tmp_path):
    start(_sharded, (str(tmp_path),), 2)
    net = _net()
    optimizer = _adamw(net)
    log = watch(net, optimizer, every=4)
    _train(net, optimizer)
    for rank in range(2):
        for expected, found in zip(log.records, json.loads((tmp_path / f"{rank}.json").read_text()), strict=True):
            assert {key: found[key] for key in expected} == pytest.approx(expected, rel=2e-4)
