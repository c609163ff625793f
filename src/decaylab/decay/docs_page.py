"""The page of the docs on decay rules, written from the table and the measured costs. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from decaylab.decay.registry import TABLE, Entry

_INTRODUCTION = """\
# Decay rules

<!-- Written by `decaylab rules --markdown --costs results/decay_step.csv`: change the table, not this file. -->

A decay rule is not an optimizer. It is a small frozen dataclass that is installed on an optimizer which you already
have:

```python
from decaylab import decay

optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0, fused=True)
handle = decay.attach(optimizer, decay.Corrected(weight_decay=0.1))            # or decay.build("corrected", 0.1)
...                                                                            # train as before
handle.remove()
```

* The optimizer's own `weight_decay` must be 0, or attaching is refused: weights would decay twice. One that a group is
  given later (by a schedule, by joining) is left out while the rule acts on the whole group, and said once.
* `params=` takes the parameters to act on, or a function that tells of a parameter whether to, also of those that join
  later. Without it the rule acts on every parameter of every group, also of groups added later, except groups with
  `decay=False` (as `decaylab.decay_groups` makes them). Who decays is kept by parameter: a state of somebody else,
  whose groups have no such key or another `weight_decay`, changes nothing.
* Attaching the same rule to the same parameters again returns its handle. `with decay.attach(...)` takes the rule off
  at the end of the block, after exceptions too.
* Several rules can be attached, to different parameters, or a projection after a decay. They act in the order of
  attaching.
* Wrappers are taken off: accelerate's, Lightning's, and SAM with its base optimizer. An optimizer that is stepped by
  other methods than `step()` is refused; one whose other methods nobody knows of is said, once its weights moved
  without a step.
* The rule's state is in `optimizer.state_dict()`; attach first and load then, or load first. It travels with torch,
  accelerate, the transformers `Trainer`, Lightning (also saved after the fit) and `torch.distributed.checkpoint`,
  flattened or not. A loaded state that has nothing of the rule is said. `copy.deepcopy(optimizer)` and pickle leave
  hooks out, and so the rule, which is said too: attach it to the copy, where it goes on.
* A parameter whose gradient is `None` is never touched. What a rule does where the gradient is zero is said below.
* A sparse gradient (`nn.Embedding(sparse=True)`) decays every row of its weight, also those that the batch did not use;
  with `L2` the optimizer then gets a dense gradient, which `SparseAdam` refuses. `rows="touched"` acts only on the rows
  that the gradient has entries for (of a dense gradient: rows that are not zero), for rules that look at one entry at a
  time.
* A rule with a `weight_decay` takes a schedule of its own, on top of what it does with the learning rate:
  `schedule=DecaySchedule(kind="cosine_to_zero"), total_steps=10_000` (`constant`, `with_lr`, `cosine_to_zero`,
  `early_only`, `step`). Steps are counted from attaching.
* `step(closure)` works; with LBFGS an L2 penalty is part of the loss that its line search sees.
* In a step under `torch.compile` the rule runs eagerly between the compiled parts (so not with `fullgraph=True`). In a
  CUDA graph, rules that count steps are refused.
* With a `GradScaler` and a fused optimizer the gradients are still scaled in the step: rules that edit gradients refuse
  that unless the kernel does the rule or `scaler.unscale_(optimizer)` came first. A step that overflows is left alone.
* DDP: every rank computes the same. FSDP2 and other `DTensor` parameters: norms are completed over the shards;
  rules over rows need dimension 0 sharded. FSDP1's flattened parameters are refused where norms count.
* bfloat16 weights: norms are taken and applied in float32. A plain decay of less than 2^-9 a step rounds away, as it
  does in torch, unless a fused kernel does it together with the update.

In the equations p and w are weights, g the gradient, u the optimizer's update without decay, `lr_t` the learning rate
of step t and `lr_max` its peak.
"""


def page(costs: Sequence[Mapping[str, str]] = ()) -> str:
    """Return the page as Markdown.

    Args:
        costs: Rows of the benchmark's CSV, with the keys ``rule``, ``ratio``, ``step_ms`` and ``torch_ms``.
    """
    parts = [_INTRODUCTION]
    family = ""
    for entry in TABLE.values():
        if entry.family != family:
            family = entry.family
            parts.append(f"## {family[0].upper()}{family[1:]}\n")
        parts.append(_section(entry))
    if costs:
        parts.append(_costs(costs))
    return "\n".join(parts)


def _section(entry: Entry) -> str:
    name = entry.path.split(":")[1]
    use = {
        "attach": f'`attach(optimizer, {name}(...))`, or `build("{entry.name}", ...)`',
        "parametrize": "`powerpropagate(model, alpha)` before the optimizer is made",
        "function": f"`{name}(weight, ...)`",
        "penalty": f"`loss + strength * {name}(...)(weights)`",
    }[entry.use]
    lines = [
        f"### {name}",
        "",
        f"{entry.text[0].upper()}{entry.text[1:]}.",
        "",
        "```text",
        entry.equation,
        "```",
        "",
        f"* Use: {use}",
        f"* For: {entry.applies_to}",
        f"* Memory: {entry.memory}",
        f"* Zero gradient: {entry.zero_grad}",
        f"* Source: {entry.paper}",
    ]
    if entry.options:
        lines += ["", "| option | default | meaning |", "| --- | --- | --- |"]
        lines += [f"| `{o.name}` | {o.default} | {o.text.replace('|', '&#124;')} |" for o in entry.options]
    return "\n".join([*lines, ""])


def _costs(costs: Sequence[Mapping[str, str]]) -> str:
    lines = [
        "## Cost",
        "",
        "Time of a step of fused AdamW with the rule, over that of torch's own fused `AdamW(weight_decay)`, at the",
        "shapes of GPT-2 small: 148 tensors, 124M float32 weights, all of them the rule's. Median over pairs of",
        "neighbouring steps, 2 cores CPU, one thread, printed by `benchmarks/decay_step.py`. Where the optimizer's",
        "kernel can do the rule it does; `native=False` is the rule's own pass over the weights, as with optimizers",
        "that are not torch's.",
        "",
        "| rule | ratio | ms a step | torch, ms |",
        "| --- | --- | --- | --- |",
    ]
    lines += [f"| {row['rule']} | {row['ratio']} | {row['step_ms']} | {row['torch_ms']} |" for row in costs]
    return "\n".join([*lines, ""])
