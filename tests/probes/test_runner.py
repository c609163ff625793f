import pytest
import torch
from torch import nn

from decaylab import models, watch
from decaylab.errors import DecaylabError
from decaylab.probes import DEFAULT_PROBES, PROBES, ProbeRunner
from decaylab.probes import runner as runner_file

EVERYTHING = [name for name, row in PROBES.items() if "loss" not in row.needs]


def _train(names, steps=6, make=None, **options):
    torch.manual_seed(0)
    model = models.GPT(vocab_size=13, context=8, num_layers=1, num_heads=2, width=8, dropout=0.1)
    optimizer = make(model) if make else torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    runner = ProbeRunner(names, model, optimizer, **options)
    records = []
    for step in range(steps):
        for _ in range(2):
            tokens = torch.randint(0, 13, (4, 9))
            model.loss(tokens[:, :-1], tokens[:, 1:]).backward()
        runner.before_step(step)
        optimizer.step()
        record = runner.after_step(step)
        if record:
            records.append(record)
        optimizer.zero_grad()
    return model, records


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_weights_and_random_state_are_bit_equal_with_and_without_probes(kind):
    def make(model):
        if kind == "adamw":
            return torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
        return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)

    def loss(model, batch):
        return model.loss(*batch)

    tokens = torch.randint(0, 13, (4, 9), generator=torch.Generator().manual_seed(1))
    batches = [(tokens[:, :-1], tokens[:, 1:])]
    plain, none = _train([], make=make)
    state = torch.get_rng_state()
    probed, records = _train([*EVERYTHING, "gradient_noise"], make=make, every=2, loss_fn=loss, batches=batches)
    assert torch.equal(torch.get_rng_state(), state)
    assert probed.training and len(records) == 3 and not none
    for a, b in zip(plain.parameters(), probed.parameters(), strict=True):
        assert torch.equal(a, b)
    for module in probed.modules():
        assert not module._forward_hooks


def test_one_wait_for_the_device_a_record(monkeypatch):
    net = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.1, foreach=False)
    runner = ProbeRunner(EVERYTHING, net, optimizer, every=1)
    waits = []
    to_host = torch.Tensor.tolist

    def forbidden(self):
        raise AssertionError("a probe waits for the device")

    for step in range(3):
        for _ in range(2):
            net(torch.ones(2, 4)).sum().backward()
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "tolist", lambda self: waits.append(1) or to_host(self))
            for method in ("item", "__float__", "__int__", "__bool__", "__index__"):
                patch.setattr(torch.Tensor, method, forbidden)
            runner.before_step(step)
            patch.undo()
        optimizer.step()
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "tolist", lambda self: waits.append(1) or to_host(self))
            for method in ("item", "__float__", "__int__", "__bool__", "__index__"):
                patch.setattr(torch.Tensor, method, forbidden)
            found = runner.after_step(step)
    assert len(waits) == 3
    assert len(found) > 30


def test_weights_are_copied_only_for_a_record_that_compares_them():
    net = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for names, expected in [(["norms"], 4), (["effective_lr"], 0)]:
        runner = ProbeRunner(names, net, optimizer, every=5)
        kept = 0
        for step in range(10):
            net.weight.grad = torch.ones(3, 4)
            runner.before_step(step)
            kept += len(runner._previous or ())
            optimizer.step()
            runner.after_step(step)
            assert runner._previous is None
        assert kept == expected


def test_keys_are_stable_paths():
    _, records = _train(EVERYTHING, every=3)
    assert records[0].keys() == records[1].keys()
    for key in records[0]:
        assert key == key.lower() and " " not in key and not key.startswith("/") and not key.endswith("/")


def test_a_step_that_was_called_off_is_not_recorded():
    net = nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.1)
    runner = ProbeRunner(DEFAULT_PROBES, net, optimizer, every=1)
    runner.before_step(0)
    assert runner.after_step(0) is None
    assert runner.after_step(1) is None
    net.weight.grad = torch.ones(3, 4)
    runner.before_step(1)
    optimizer.step()
    assert runner.after_step(1)["timescale/passed"] == pytest.approx(0.01)


def test_groups_added_while_training_are_seen():
    net = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 2, bias=False))
    optimizer = torch.optim.AdamW(net[0].parameters(), lr=0.1, weight_decay=0.1)
    runner = ProbeRunner(["timescale", "effective_lr"], net, optimizer, every=1)
    for step in range(2):
        for p in net.parameters():
            p.grad = torch.ones_like(p)
        runner.before_step(step)
        optimizer.step()
        found = runner.after_step(step)
        assert ("timescale/passed/head" in found) == (step == 1)
        if step == 0:
            optimizer.add_param_group({"params": net[1].parameters(), "lr": 0.2})
    assert found["timescale/passed/matrix"] == pytest.approx(0.02)
    assert found["timescale/passed/head"] == pytest.approx(0.02)


def test_mistakes_are_said_in_one_line():
    net = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(DecaylabError, match="did you mean 'norms'"):
        ProbeRunner(["norm"], net, optimizer)
    with pytest.raises(DecaylabError, match="every must be a whole number of at least 1, got 0"):
        ProbeRunner(["norms"], net, optimizer, every=0)
    for every in (1.5, "5", None):
        with pytest.raises(DecaylabError, match="every must be a whole number"):
            ProbeRunner(["norms"], net, optimizer, every=every)
    with pytest.raises(DecaylabError, match="torch module, got function"):
        watch(lambda x: x, optimizer)
    with pytest.raises(DecaylabError, match="holds none of the model's trainable parameters"):
        watch(nn.Linear(2, 2), optimizer)
    with pytest.raises(DecaylabError, match="no state of a log"):
        watch(net, optimizer).load_state_dict({})
    with pytest.raises(DecaylabError, match="'gradient_noise' runs the model: give loss_fn= and batches="):
        ProbeRunner(["gradient_noise"], net, optimizer)


def test_no_probes_cost_nothing_and_close_leaves_no_hooks():
    net = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    empty = ProbeRunner([], net, optimizer)
    empty.before_step(0)
    assert empty.after_step(0) is None and not empty.due(0)
    runner = ProbeRunner(EVERYTHING, net, optimizer)
    assert optimizer._optimizer_step_post_hooks and net.weight._backward_hooks
    runner.close()
    assert not optimizer._optimizer_step_post_hooks and not net.weight._backward_hooks


def test_probes_with_settings_of_their_own():
    from decaylab.probes.effective_lr import AdamRate

    assert runner_file.make(["norms", AdamRate(sample=5), "norms"])[1].sample == 5
    assert len(runner_file.make(["norms", "norms"])) == 1


def test_a_step_that_goes_into_a_cuda_graph_is_left_out_with_a_word(monkeypatch):
    capturing = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: bool(capturing))
    net = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    log = watch(net, optimizer, every=1)

    def step():
        net(torch.ones(1, 2)).sum().backward()
        optimizer.step()

    step()
    capturing.append(True)
    with pytest.warns(UserWarning, match="do not see the steps of a CUDA graph"):
        step()
    capturing.clear()
    step()
    assert [record["step"] for record in log.records] == [0, 2]
