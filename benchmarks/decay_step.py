"""What does a decay rule cost? Step time of fused AdamW with a rule over torch's AdamW(weight_decay), at GPT-2 sizes.

Every parameter of GPT-2 small (148 tensors, 124M weights) decays. Steps with and without the rule take turns on the
same weights and gradients, and the ratio is the median over pairs of neighbours. Beside it stands the bound, the ratio
of what both have to move between memory and processor, and what multiple of it was measured. On CPU with one thread the
clock is that of the process, which other programs on the machine disturb less. The last line is that of `Decoupled`.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from pathlib import Path

import torch

from decaylab import decay
from decaylab.files import atomic_path

# What a rule needs beside its defaults to run here.
OPTIONS: dict[str, dict[str, object]] = {"constrained": {"bound": "dependent"}}
TARGET = 1.10
# Arrays as large as the weights that a rule reads and writes beside fused AdamW, which moves seven (reads p, g, m, v;
# writes p, m, v). Cautious: reads p and writes the copy, then reads both and writes p. Rules of torch's kernels: 0.
ARRAYS = {
    "l2": 0, "decoupled": 0, "independent": 0, "constant": 0, "quadratic_lr": 0, "corrected": 0,
    "l2 (native=False)": 3, "decoupled (native=False)": 2, "cautious": 5, "scheduled": 2, "sphere_projection": 3,
    "fixed_norm": 3, "follow_norms": 3, "normalize_and_project": 3, "weight_norm_control": 3, "constrained": 3,
    "max_norm": 2, "hyperball": 7, "rotational": 5, "selective_projection": 8, "l2_to_anchor": 4,
}  # fmt: skip


def bound(label: str) -> float | None:
    """Return the least that a rule can cost, as its step's traffic with memory over that of fused AdamW."""
    return (7 + ARRAYS[label]) / 7 if label in ARRAYS else None


def gpt2_shapes(layers: int, width: int = 768, vocabulary: int = 50257, context: int = 1024) -> list[tuple[int, ...]]:
    """Return the shapes of GPT-2's parameters in the order of its layers."""
    vector = (width,)
    block: list[tuple[int, ...]] = [vector, vector, (3 * width, width), (3 * width,), (width, width), vector]
    block += [vector, vector, (4 * width, width), (4 * width,), (width, 4 * width), vector]
    return [(vocabulary, width), (context, width), *block * layers, vector, vector]


def options(name: str, num_tensors: int) -> dict[str, object]:
    """Return what a rule needs beside its defaults to act on so many tensors."""
    return {"norms": torch.ones(1, num_tensors)} if name == "follow_norms" else OPTIONS.get(name, {})


def timed(optimizer: torch.optim.Optimizer) -> float:
    on_gpu = torch.cuda.is_available()
    clock = time.perf_counter if on_gpu or torch.get_num_threads() > 1 else time.process_time
    start = clock()
    optimizer.step()
    if on_gpu:
        torch.cuda.synchronize()
    return clock() - start


def compare(baseline: torch.optim.Optimizer, other: torch.optim.Optimizer, rounds: int) -> tuple[float, float, float]:
    """Return the median ratio of neighbouring steps, and the median step times; the first two rounds warm up."""
    pairs = []
    for turn in range(rounds + 2):
        pair = (timed(baseline), timed(other)) if turn % 2 else (timed(other), timed(baseline))[::-1]
        if turn >= 2:
            pairs.append(pair)
    plain, ruled = ([pair[which] for pair in pairs] for which in (0, 1))
    ratio = statistics.median(b / a for a, b in pairs)
    return ratio, statistics.median(plain), statistics.median(ruled)


def save(out: Path, rows: list[tuple[str, str, str, str]]) -> None:
    """Write the rows in the order of the table; rows of other rules that the file already has are kept."""
    merged = {row[0]: row for row in rows}
    if out.exists():
        with out.open(newline="") as file:
            merged = {row[0]: tuple(row) for row in list(csv.reader(file))[1:]} | merged
    order = {name: place for place, name in enumerate(decay.TABLE)}
    lines = sorted(merged.values(), key=lambda row: (order[row[0].split(" ")[0]], row[0]))
    with atomic_path(out) as path, path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("rule", "ratio", "step_ms", "torch_ms"), *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=12, help="blocks of GPT-2 small; 12 is the whole model")
    parser.add_argument("--rounds", type=int, default=9, help="timed steps of each kind")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rules", nargs="*", help="only these; all by default")
    parser.add_argument("--out", type=Path, help="also write the ratios as CSV, after every rule")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    params = [torch.nn.Parameter(0.02 * torch.randn(shape, device=device)) for shape in gpt2_shapes(args.layers)]
    for p in params:
        p.grad = 1e-3 * torch.randn_like(p)
    count = sum(p.numel() for p in params)
    print(f"{len(params)} tensors, {count / 1e6:.1f}M float32 weights, {device}, {args.threads} thread(s)")

    baseline = torch.optim.AdamW(params, lr=1e-5, weight_decay=0.1, fused=True)
    optimizer = torch.optim.AdamW(params, lr=1e-5, weight_decay=0.0, fused=True)
    names = args.rules or [name for name, entry in decay.TABLE.items() if entry.use == "attach"]
    rows = []
    for name in names:
        rule = decay.build(name, 1e-3 if decay.TABLE[name].scheduled else None, **options(name, len(params)))
        for native in (True, False) if name in ("l2", "decoupled") else (True,):
            handle = decay.attach(optimizer, rule, native=native)
            ratio, plain, ruled = compare(baseline, optimizer, args.rounds)
            handle.remove()
            label = name if native else f"{name} (native=False)"
            least = bound(label)
            told = "" if least is None else f"   bound {least:.2f}, {ratio / least:.2f} of it"
            print(f"{label:<28} {ratio:5.2f}   {1e3 * ruled:7.1f} ms against {1e3 * plain:7.1f} ms{told}", flush=True)
            rows.append((label, f"{ratio:.2f}", f"{1e3 * ruled:.1f}", f"{1e3 * plain:.1f}"))
            if args.out:
                save(args.out, rows)
    for row in rows:
        if row[0] == "decoupled":
            print(f"decay_step: Decoupled on fused AdamW / torch AdamW(weight_decay) = {row[1]} (target {TARGET:.2f})")


if __name__ == "__main__":
    main()
