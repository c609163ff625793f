"""How long does the Hessian trace take to 1 %, against PyHessian and against Hutchinson's method with shared graphs?

    python benchmarks/curvature.py [--pyhessian FOLDER] [--points 2000]

The network is the mini pre-activation ResNet (44,130 parameters), trained to interpolation on 2,000 points: the 1,797
images of scikit-learn's digits, and 203 of them shifted by one pixel. Once with ReLU, once with GELU. One thread, and
the clock is that of the process, which other programs on the machine disturb less.

PyHessian is not a dependency: install it beside (``pip install --no-deps --target FOLDER PyHessian==0.1``) and name the
folder. A run of it to 1 % takes minutes, so its time is extrapolated from measured probes: seconds a probe, times the
number of probes that its measured spread asks for, (spread / 1 %)^2. Each tool does its own best: PyHessian with all
points as one batch and with a loader, whichever is faster.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
import warnings
from collections.abc import Callable

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from decaylab.curvature import Estimate, hessian_trace
from decaylab.models import preact_resnet

AIM = 0.01


def points(count: int) -> tuple[Tensor, Tensor]:
    digits = load_digits()
    x, y = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1), torch.tensor(digits.target)
    more = max(0, count - len(x))
    x = torch.cat([x, F.pad(x[:more], (1, 0))[..., :-1]])[:count]
    y = torch.cat([y, y[:more]])[:count]
    return (x - x.mean()) / x.std(), y


def trained(activation: str, x: Tensor, y: Tensor) -> nn.Module:
    torch.manual_seed(0)
    net = preact_resnet("small", in_channels=1, width=8, activation=activation)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    epochs = 0
    loss, errors = float("inf"), len(x)
    while epochs < 40 and (errors or loss > 0.01):
        net.train()
        for some in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(net(x[some]), y[some]).backward()
            optimizer.step()
        epochs += 1
        optimizer.param_groups[0]["lr"] *= 0.85
        net.eval()
        with torch.no_grad():
            z = net(x)
            loss, errors = float(F.cross_entropy(z, y)), int((z.argmax(1) != y).sum())
    print(f"  trained {epochs} epochs: {errors} errors on {len(y)} points, loss {loss:.4f}")
    return net


def median_seconds(run: Callable[[int], object], repeats: int) -> float:
    times = []
    for seed in range(repeats):
        started = time.process_time()
        run(seed)
        times.append(time.process_time() - started)
    return statistics.median(times)


def pyhessian_seconds(net: nn.Module, x: Tensor, y: Tensor, truth: float, num_probes: int) -> float:
    """Seconds that PyHessian needs to 1 %, in the faster of its two modes."""
    import numpy
    from pyhessian import hessian

    numpy.random.seed(0)
    torch.manual_seed(0)
    batches = list(zip(x.split(128), y.split(128), strict=True))
    found = {}
    values: list[float] = []
    for mode, data in (("one batch", {"data": (x, y)}), ("loader of 128", {"dataloader": batches})):
        started = time.process_time()
        tool = hessian(copy.deepcopy(net), nn.CrossEntropyLoss(), cuda=False, **data)
        build = time.process_time() - started
        started = time.process_time()
        new = tool.trace(maxIter=num_probes, tol=0)
        found[mode] = build, (time.process_time() - started) / num_probes
        values += new
    spread = statistics.stdev(values) / truth  # both modes draw the same kind of vectors
    probes = (spread / AIM) ** 2
    totals = {mode: build + probes * each for mode, (build, each) in found.items()}
    for mode, (_, each) in found.items():
        print(
            f"  PyHessian 0.1, {mode}: {each:.3f} s a probe, spread {spread:.1%} a probe: "
            f"{probes:.0f} probes, {totals[mode]:.0f} s (extrapolated)"
        )
    mean, error = statistics.fmean(values), statistics.stdev(values) / len(values) ** 0.5
    print(f"    its mean over {len(values)} probes {mean:.3f} +- {error:.3f}")
    return min(totals.values())


def hutchinson_seconds(net: nn.Module, x: Tensor, y: Tensor, num_probes: int) -> float:
    """Seconds that shared-graph Hutchinson needs to 1 %, extrapolated in the same way."""
    started = time.process_time()
    found = hessian_trace(net, F.cross_entropy, [(x, y)], 0, method="hutchinson", max_matvecs=num_probes)
    each = (time.process_time() - started) / num_probes
    spread = found.rel_stderr * num_probes**0.5
    probes = (spread / AIM) ** 2
    print(
        f"  Hutchinson, graphs shared by all probes: {each:.3f} s a probe, spread {spread:.1%} a probe: "
        f"{probes:.0f} probes, {each * probes:.0f} s (extrapolated)"
    )
    print(f"    its mean over {num_probes} probes {found.value:.3f} +- {found.stderr:.3f}")
    return each * probes


def compare(activation: str, count: int, peer: bool) -> None:
    x, y = points(count)
    print(f"\n{activation.upper()} network")
    net = trained(activation, x, y)

    def trace(rel_error: float, seed: int = 0, size: int = count) -> Estimate:
        return hessian_trace(net, F.cross_entropy, [(x[:size], y[:size])], rel_error, seed=seed)

    trace(0.1)  # warm up
    if activation == "relu":
        exact = trace(0)
        print(f"  decaylab, exact: {exact.value:.4f} from {exact.num_rows} rows")
        for size in (count // 4, count // 2, count):
            seconds = median_seconds(lambda seed, size=size: trace(0, seed, size), 3)
            print(f"    of {size} points: {seconds:.2f} s")
    estimates: list[Estimate] = []
    seconds = median_seconds(lambda seed: estimates.append(trace(AIM, seed)), 5)
    one = estimates[0]
    print(f"  decaylab, to {AIM:.0%}: {one.value:.3f} +- {one.stderr:.3f} in {seconds:.2f} s")
    print(f"    {one.method}, {one.num_rows} rows; five seeds: {', '.join(f'{e.value:.2f}' for e in estimates)}")
    print(f"  decaylab, to {2 * AIM:.0%}: {median_seconds(lambda seed: trace(2 * AIM, seed), 3):.2f} s")
    ratio = hutchinson_seconds(net, x, y, 24) / seconds
    print(f"{activation}: Hutchinson with shared graphs / decaylab = {ratio:.0f}x")
    if peer:
        ratio = pyhessian_seconds(net, x, y, one.value, 15) / seconds
        print(f"{activation}: PyHessian 0.1 / decaylab = {ratio:.0f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pyhessian", metavar="FOLDER", help="where PyHessian 0.1 was installed")
    parser.add_argument("--points", type=int, default=2000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.pyhessian:
        sys.path.append(options.pyhessian)
        warnings.filterwarnings("ignore", message="Using backward")  # PyHessian keeps its graph that way
    else:
        print("PyHessian is left out: name its folder with --pyhessian to compare")
    for activation in ("relu", "gelu"):
        compare(activation, options.points, bool(options.pyhessian))


if __name__ == "__main__":
    main()
