"""Two processes: ranks stay identical under DDP, and sharded parameters (FSDP2) give what whole ones give."""

import copy
import json
import warnings
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from tests.support.processes import start
from tests.support.rule_cases import CASES, optimizer

from decaylab import decay
from decaylab.errors import DecaylabError

STEPS = 4
BY_ENTRY = ("l2", "decoupled", "independent", "constant", "quadratic_lr", "corrected", "cautious", "l2_to_anchor")


def model():
    torch.manual_seed(0)
    # 5 and 3 rows on two ranks: uneven shards
    return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).double()


def batches(seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(8, 6, generator=generator, dtype=torch.float64) for _ in range(STEPS)]


def attached(case, params):
    opt = optimizer("adam", params)
    # The rows of other ranks are out of sight, so the threshold is given.
    rule = decay.MaxNorm(threshold=0.5) if case.name == "max_norm" else case.rule()
    decay.attach(opt, rule)
    return opt


def fit(net, opt, data):
    for batch in data:
        opt.zero_grad()
        net(batch).square().sum().backward()
        opt.step()


def full(net):
    return [p.detach().full_tensor() if hasattr(p, "full_tensor") else p.detach() for p in net.parameters()]


def gap(left, right):
    return max((a - b).abs().max().item() for a, b in zip(left, right, strict=True))


def check_ddp(case, rank):
    net = torch.nn.parallel.DistributedDataParallel(model())
    fit(net, attached(case, net.parameters()), batches(seed=rank))
    mine = torch.cat([p.detach().flatten() for p in net.parameters()])
    both = [torch.empty_like(mine) for _ in range(2)]
    dist.all_gather(both, mine)
    return 0.0 if torch.equal(*both) else 1.0


def check_fsdp(case, flat=False):
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_optimizer_state_dict,
        set_optimizer_state_dict,
    )
    from torch.distributed.fsdp import fully_shard

    options = StateDictOptions(flatten_optimizer_state_dict=flat)

    whole = model()
    fit(whole, attached(case, whole.parameters()), batches(seed=7))

    first = model()
    fully_shard(first)
    opt = attached(case, first.parameters())
    fit(first, opt, batches(seed=7)[:2])
    state = get_optimizer_state_dict(first, opt, options=options)
    weights = copy.deepcopy(first.state_dict())

    second = model()
    fully_shard(second)
    opt = attached(case, second.parameters())
    with torch.no_grad():
        for p in second.parameters():
            p.grad = torch.zeros_like(p)
    opt.zero_grad()
    set_optimizer_state_dict(second, opt, state, options=options)
    second.load_state_dict(weights)
    steps = decay.handles(opt)[0].steps
    fit(second, opt, batches(seed=7)[2:])
    return gap(full(second), full(whole)) if steps == 2 else float("nan")


def check_fsdp1(case, use_orig_params):
    """FSDP's first version: what is refused, or how far a rule is from what it does to whole tensors."""
    from torch.distributed.fsdp import FullyShardedDataParallel as Fsdp

    whole = model()
    opt = optimizer("adam", whole.parameters())
    decay.attach(opt, case.rule())
    fit(whole, opt, batches(seed=7))
    net = Fsdp(model(), use_orig_params=use_orig_params, device_id=torch.device("cpu"))
    opt = optimizer("adam", net.parameters())
    try:
        handle = decay.attach(opt, case.rule())
    except DecaylabError as error:
        return str(error)
    fit(net, opt, batches(seed=7)[:2])
    if not use_orig_params:  # torch's own reload changes what Adam does next with them, without a rule too
        opt.load_state_dict(Fsdp.optim_state_dict_to_load(net, opt, Fsdp.optim_state_dict(net, opt)))
        if not handle.restored or handle.steps != 2:
            return "the state is lost"
    fit(net, opt, batches(seed=7)[2:])
    with Fsdp.summon_full_params(net):
        return gap(full(net), full(whole))


def refusals():
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh

    said = []
    net = model()
    fully_shard(net)
    mesh = init_device_mesh("cpu", (2,))
    sideways = torch.nn.Parameter(distribute_tensor(torch.ones(4, 4), mesh, [Shard(1)]))
    flat = model()
    for p in flat.parameters():
        p._fsdp_flattened = True
    for rule, params in (
        (decay.MaxNorm(), net.parameters()),
        (decay.Rotational(0.1), [sideways]),
        (decay.SphereProjection(), flat.parameters()),
    ):
        try:
            decay.attach(optimizer("adam", params), rule)
        except DecaylabError as error:
            said.append(str(error))
    return said


def worker(rank, file, out):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{file}", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    result = {"ddp": {}, "fsdp": {}, "flattened": {}, "fsdp1": {}}
    for case in CASES:
        result["ddp"][case.name] = check_ddp(case, rank)
        result["fsdp"][case.name] = check_fsdp(case)
        if case.name in ("weight_norm_control", "l2_to_anchor", "rotational"):  # numbers, tensors, rows
            result["flattened"][case.name] = check_fsdp(case, flat=True)
        for use_orig_params in (True, False):
            result["fsdp1"][f"{case.name} {use_orig_params}"] = check_fsdp1(case, use_orig_params)
    result["refusals"] = refusals()
    dist.barrier()
    dist.destroy_process_group()
    if rank == 0:
        with open(out, "w") as handle:
            json.dump(result, handle)


@pytest.mark.slow
def test_two_processes(tmp_path):
    start(worker, (str(tmp_path / "meet"), str(tmp_path / "out")), 2)
    result = json.loads((tmp_path / "out").read_text())
    assert result["ddp"] == {case.name: 0.0 for case in CASES}
    apart = {name: value for name, value in (result["fsdp"] | result["flattened"]).items() if not value < 1e-10}
    assert not apart
    for name, found in result["fsdp1"].items():
        if name.split()[0] in BY_ENTRY:
            assert isinstance(found, float) and found < 1e-10, (name, found)
        else:
            assert "do not work on FSDP's flattened parameters" in found, (name, found)
    assert ["give threshold" in result["refusals"][0], "shard along dimension 0" in result["refusals"][1]] == [
        True,
        True,
    ]
    assert "use fully_shard (FSDP2)" in result["refusals"][2]
