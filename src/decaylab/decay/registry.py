"""Which decay rules are there? One entry a rule: for config choices, ``decaylab rules``, the docs page and the tests.

This file imports no torch, so that the command line can list rules at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from decaylab.errors import DecaylabError, unknown
from decaylab.references import is_reference, load, plugins

Use = Literal["attach", "parametrize", "function", "penalty"]


@dataclass(frozen=True)
class Option:
    """An option of a rule.

    Attributes:
        name: Name of the field.
        default: Its default as it is written in Python, or ``required``.
        text: What it means, one line.
    """

    name: str
    default: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What there is to know of a rule.

    Attributes:
        name: Its name in configs: the class's in lower case with underscores.
        path: ``module:name`` of the class or function.
        family: Which family it belongs to.
        use: How it is used: ``attach`` (a rule), ``parametrize`` (before the optimizer is made), ``function`` (after
            training) or ``penalty`` (in the loss).
        text: What it does, one line.
        equation: Its equation: p a weight, g its gradient, u the optimizer's update without decay, t the step.
        applies_to: Which parameters it is meant for.
        memory: What it keeps beside the optimizer's own state.
        zero_grad: What it does where the gradient is zero. Where there is none, no rule does anything.
        paper: Where it comes from.
        options: Its options, without ``schedule`` and ``total_steps``.
    """

    name: str
    path: str
    family: str
    use: Use = "attach"
    text: str
    equation: str
    applies_to: str
    memory: str
    zero_grad: str
    paper: str
    options: tuple[Option, ...] = ()

    @property
    def scheduled(self) -> bool:
        """Whether it has a coefficient that a decay schedule can multiply."""
        return self.use == "attach" and any(option.name == "weight_decay" for option in self.options)

    @property
    def aliases(self) -> tuple[str, ...]:
        """Names under which it was published."""
        return tuple(alias for alias, name in ALIASES.items() if name == self.name)

    def load(self) -> Any:
        """Import and return the class or function (this imports torch)."""
        return load(self.path)


_ENTRIES = (
    Entry(
        name="l2",
        path="decaylab.decay.rules.classic:L2",
        family="classic",
        text="the gradient of an L2 penalty, added before momentum and moments",
        equation="g <- g + lambda p",
        applies_to="any",
        memory="none; where torch's kernel cannot do it one copy of the gradients, kept between steps on a CPU",
        zero_grad="decays",
        paper="Krogh and Hertz 1991",
        options=(Option("weight_decay", "required", "lambda of lambda/2 ||p||^2"),),
    ),
    Entry(
        name="decoupled",
        path="decaylab.decay.rules.classic:Decoupled",
        family="classic",
        text="AdamW's decay: beside the update, times the learning rate",
        equation="p <- p (1 - lr_t lambda) - lr_t u",
        applies_to="any",
        memory="none",
        zero_grad="decays",
        paper="Loshchilov and Hutter 2019, arXiv 1711.05101 (torch's convention)",
        options=(Option("weight_decay", "0.01", "lambda, times lr"),),
    ),
    Entry(
        name="independent",
        path="decaylab.decay.rules.classic:Independent",
        family="classic",
        text="decay times the schedule alone, so lambda does not depend on the peak learning rate",
        equation="p <- p (1 - lambda lr_t / lr_max) - lr_t u",
        applies_to="any",
        memory="none",
        zero_grad="decays",
        paper="Loshchilov and Hutter 2019 (their convention); Wortsman et al. 2023, arXiv 2309.14322",
        options=(
            Option("weight_decay", "0.0001", "lambda, the share taken at the peak"),
            Option("max_lr", "None", "peak learning rate; None: the scheduler's, or the one at attaching"),
        ),
    ),
    Entry(
        name="constant",
        path="decaylab.decay.rules.classic:Constant",
        family="classic",
        text="the same share at every step, whatever the learning rate",
        equation="p <- p (1 - lambda) - lr_t u",
        applies_to="any",
        memory="none",
        zero_grad="decays",
        paper="in use as fixed or fully decoupled decay",
        options=(Option("weight_decay", "required", "lambda, the share taken by every step"),),
    ),
    Entry(
        name="quadratic_lr",
        path="decaylab.decay.rules.classic:QuadraticLR",
        family="classic",
        text="decay times the squared learning rate",
        equation="p <- p (1 - lr_t^2 lambda) - lr_t u",
        applies_to="any",
        memory="none",
        zero_grad="decays",
        paper="Chowdhery et al. 2022 (PaLM), arXiv 2204.02311",
        options=(Option("weight_decay", "required", "lambda, times lr^2"),),
    ),
    Entry(
        name="corrected",
        path="decaylab.decay.rules.classic:Corrected",
        family="classic",
        text="AdamC's decay: the ratio of gradient to weight of a normalised layer holds when the learning rate falls",
        equation="p <- p (1 - lambda lr_t^2 / lr_max) - lr_t u",
        applies_to="weights whose output is normalised; others: decoupled",
        memory="none",
        zero_grad="decays",
        paper="Defazio 2025, arXiv 2506.02285",
        options=(
            Option("weight_decay", "required", "lambda, as in decoupled at the peak"),
            Option("max_lr", "None", "peak learning rate; None: the scheduler's, or the one at attaching"),
        ),
    ),
    Entry(
        name="cautious",
        path="decaylab.decay.rules.classic:Cautious",
        family="classic",
        text="decay only where it does not work against the update",
        equation="p <- p - lr_t u - lr_t lambda 1[u p >= 0] p",
        applies_to="any",
        memory="one copy of the weights; on a GPU without Triton two more during the step",
        zero_grad="decays where the update is zero",
        paper="Chen et al. 2025, arXiv 2510.12402",
        options=(Option("weight_decay", "required", "lambda, times lr"),),
    ),
    Entry(
        name="scheduled",
        path="decaylab.decay.rules.scheduled:Scheduled",
        family="scheduled",
        text="decay follows the size of the gradients (AdamS), or the momentum (SGDS)",
        equation="p <- p (1 - lr_t lambda / sqrt(mean v)) - lr_t u;  SGD: lambda (1 - damp) / (1 - mu) instead",
        applies_to="any; Adam's family and SGD",
        memory="none",
        zero_grad="decays",
        paper="Xie et al. 2023, arXiv 2011.11152",
        options=(Option("weight_decay", "0.0001", "lambda"),),
    ),
    Entry(
        name="sphere_projection",
        path="decaylab.decay.rules.projection:SphereProjection",
        family="norm control",
        text="puts the weights back on a sphere, jointly or each tensor on its own",
        equation="w <- R w / ||w||",
        applies_to="scale-invariant weights",
        memory="a number a tensor",
        zero_grad="projects",
        paper="Kodryan et al. 2022, arXiv 2209.03695; eq. 3 of the paper",
        options=(
            Option("radius", "None", "R; None: the norm at attaching"),
            Option("joint", "True", "one sphere for all parameters, or one a tensor"),
            Option("every", "1", "project after every so many steps"),
        ),
    ),
    Entry(
        name="fixed_norm",
        path="decaylab.decay.rules.projection:FixedNorm",
        family="norm control",
        text="keeps each tensor's norm at its start or at a given number (FixNorm-style, weight rescaling)",
        equation="w <- n w / ||w||",
        applies_to="weights that feed a normalisation; the last layer with a norm of its own",
        memory="a number a tensor",
        zero_grad="projects",
        paper="Zhou et al. 2021, arXiv 2103.15345 (reconstructed); Liu et al. 2021, arXiv 2102.03497",
        options=(
            Option("norm", "None", "n; None: the norm at attaching"),
            Option("cap", "False", "only shrink, never grow"),
            Option("every", "1", "project after every so many steps"),
        ),
    ),
    Entry(
        name="normalize_and_project",
        path="decaylab.decay.rules.projection:NormalizeAndProject",
        family="norm control",
        text="the projection of normalise-and-project (NaP)",
        equation="W <- ||W_0|| W / ||W||, every k steps",
        applies_to="weights that feed a normalisation, not the output layer",
        memory="a number a tensor",
        zero_grad="projects",
        paper="Lyle et al. 2024, arXiv 2407.01800",
        options=(Option("every", "1", "k"),),
    ),
    Entry(
        name="weight_norm_control",
        path="decaylab.decay.rules.norm_control:WeightNormControl",
        family="norm control",
        text="pulls each norm to a target instead of to zero (AdamWN)",
        equation="p <- p - k_t (1 - r ||p_0|| / ||p||) p,  k_t = k lr_t / lr_max",
        applies_to="matrices",
        memory="a number a tensor",
        zero_grad="controls",
        paper="Loshchilov 2023, arXiv 2311.11446, eq. 3 (order against the step reconstructed)",
        options=(
            Option("weight_decay", "required", "k, the update rate at the peak"),
            Option("ratio", "1.0", "r, target norm over norm at attaching"),
            Option("target", "None", "the target norm itself"),
            Option("max_lr", "None", "peak learning rate; None: the scheduler's, or the one at attaching"),
        ),
    ),
    Entry(
        name="rotational",
        path="decaylab.decay.rules.rotational:Rotational",
        family="norm control",
        text="turns each row by the angle of decay's equilibrium, at constant norm (RV-AdamW, RV-SGDM, RV-Lion)",
        equation="w <- n0 Norm(w - eta n0 u / rms ||u||),  u tangent;  AdamW: eta^2 = 2 lr lambda (1 - b1) / (1 + b1)",
        applies_to="tensors of two or more dimensions",
        memory="one copy of the weights, two numbers a row; without Triton two more copies during the step",
        zero_grad="turns by the momentum that is left",
        paper="Kosson et al. 2023, arXiv 2305.17212",
        options=(
            Option("weight_decay", "required", "lambda, above 0, used for eta alone"),
            Option("kind", "'auto'", "auto, adamw, sgdm or lion: whose eta"),
            Option("per_neuron", "True", "rows, or whole tensors"),
            Option("zero_mean", "True", "rows of mean zero"),
            Option("average", "0.9", "of the mean square update"),
            Option("eps", "1e-08", "added to its root"),
        ),
    ),
    Entry(
        name="hyperball",
        path="decaylab.decay.rules.norm_control:Hyperball",
        family="norm control",
        text="steps of fixed length on a sphere (AdamH, MuonH); the learning rate is the step over the radius",
        equation="W <- R Norm(W - lr_t R Norm(u))",
        applies_to="tensors of two or more dimensions",
        memory="one copy of the weights, one more during the step; a number a tensor",
        zero_grad="moves by the momentum that is left",
        paper="Wen et al. 2025, Hyperball (weight decay, part 1)",
        options=(Option("radius", "None", "R for every tensor; None: the norm at attaching"),),
    ),
    Entry(
        name="follow_norms",
        path="decaylab.decay.rules.norm_following:FollowNorms",
        family="norm control",
        text="gives each tensor, step by step, the norm that it had in another training",
        equation="w <- n_t w / ||w||,  n_t recorded after step t",
        applies_to="any; the parameters of the recorded training",
        memory="a number a tensor, and a number a tensor and step for the recorded norms",
        zero_grad="projects",
        paper="a control; cf. Kosson et al. 2023, arXiv 2305.17212",
        options=(Option("norms", "required", "n: a tensor of shape (steps, tensors)"),),
    ),
    Entry(
        name="max_norm",
        path="decaylab.decay.rules.projection:MaxNorm",
        family="norm control",
        text="a ceiling for the norm of each row",
        equation="w_c <- theta w_c / ||w_c|| where ||w_c|| > theta",
        applies_to="classifiers; tensors of two or more dimensions",
        memory="a number a tensor",
        zero_grad="projects",
        paper="Alshammari et al. 2022, arXiv 2203.14197",
        options=(
            Option("threshold", "None", "theta; None: set at attaching from the row norms"),
            Option("fraction", "0.1", "theta = min + fraction (max - min) of the row norms"),
            Option("every", "1", "project after every so many steps"),
        ),
    ),
    Entry(
        name="constrained",
        path="decaylab.decay.rules.norm_control:Constrained",
        family="norm control",
        text="a bound on each tensor's squared norm, held by a multiplier (CPR)",
        equation="mu <- max(0, mu + c/n (||p||^2 - kappa));  p <- p - 2 mu p",
        applies_to="matrices",
        memory="three numbers a tensor (inflection: five)",
        zero_grad="controls",
        paper="Franke et al. 2023, arXiv 2311.09058",
        options=(
            Option("bound", "'dependent'", "dependent, uniform, warm_start or inflection: where kappa comes from"),
            Option("kappa", "1.0", "factor of the bound"),
            Option("steps", "1000", "steps before warm_start takes the norm as the bound"),
            Option("update", "1.0", "c"),
        ),
    ),
    Entry(
        name="selective_projection",
        path="decaylab.decay.rules.fine_tuning:SelectiveProjection",
        family="fine-tuning",
        text="pulls a tensor back to the pre-trained one only when gradient and displacement disagree (SPD)",
        equation="where <g, p - p_0> > 0:  q <- q - lambda r (q - p_0),  r = clip(1 - ||p - p_0|| / ||q - p_0||, 0, 1)",
        applies_to="pre-trained weights",
        memory="one copy of the weights (anchor zero: none); on a GPU without Triton two more during the step",
        zero_grad="nothing",
        paper="Tian et al. 2024, arXiv 2411.01713",
        options=(
            Option("weight_decay", "required", "lambda; 1 returns to the distance before the step"),
            Option("anchor", "'initial'", "initial: the weights at attaching; zero: for added weights"),
        ),
    ),
    Entry(
        name="l2_to_anchor",
        path="decaylab.decay.rules.fine_tuning:L2ToAnchor",
        family="fine-tuning",
        text="an L2 penalty on the distance from the pre-trained weights (L2-SP)",
        equation="g <- g + lambda (p - p_0)",
        applies_to="pre-trained weights",
        memory="one copy of the weights (anchor zero: none) and one of the gradients, kept between steps on a CPU",
        zero_grad="decays",
        paper="Li, Grandvalet and Davoine 2018, arXiv 1802.01483",
        options=(
            Option("weight_decay", "required", "lambda of lambda/2 ||p - p_0||^2"),
            Option("anchor", "'initial'", "initial: the weights at attaching; zero: for added weights"),
        ),
    ),
    Entry(
        name="powerpropagation",
        path="decaylab.decay.related.powerpropagation:Powerpropagation",
        family="reparametrisation and others",
        use="parametrize",
        text="a parametrization under which large weights learn faster, so that small ones stay near zero",
        equation="w = phi |phi|^(alpha - 1);  dL/dphi = dL/dw alpha |phi|^(alpha - 1)",
        applies_to="weights of linear and convolution layers",
        memory="w beside phi during the forward pass",
        zero_grad="nothing of its own",
        paper="Schwarz et al. 2021, arXiv 2110.00296",
        options=(Option("alpha", "2.0", "power, at least 1"),),
    ),
    Entry(
        name="tau_normalize",
        path="decaylab.decay.related.tau_normalization:tau_normalize",
        family="reparametrisation and others",
        use="function",
        text="divides each row of a trained classifier by a power of its norm",
        equation="W_c <- W_c / ||W_c||^tau",
        applies_to="the classifier's weight, after training",
        memory="none",
        zero_grad="not in training",
        paper="Kang et al. 2020, arXiv 1910.09217",
        options=(Option("tau", "1.0", "power, at least 0"),),
    ),
    Entry(
        name="hyper_sparse",
        path="decaylab.decay.related.hypersparse:HyperSparse",
        family="reparametrisation and others",
        use="penalty",
        text="a penalty that leaves large weights alone and drives small ones to zero",
        equation="L = sum(a) T / stop(T) - sum(a),  a = |w|, T = sum tanh(s a),  s = 0.6585 / a_k",
        applies_to="weights of linear and convolution layers",
        memory="copies of the weights in the loss",
        zero_grad="penalises",
        paper="Glandorf et al. 2023, arXiv 2308.07163",
        options=(Option("sparsity", "0.9", "share of weights that are to become zero"),),
    ),
)


def _index(entries: tuple[Entry, ...]) -> dict[str, Entry]:
    table = {entry.name: entry for entry in entries}
    if len(table) != len(entries):
        raise ValueError("two decay rules have the same name")
    return table


TABLE: Mapping[str, Entry] = _index(_ENTRIES)

ALIASES: Mapping[str, str] = {
    "AdamW": "decoupled",
    "SGDW": "decoupled",
    "AdamC": "corrected",
    "CWD": "cautious",
    "SWD": "scheduled",
    "AdamS": "scheduled",
    "SGDS": "scheduled",
    "FixNorm": "fixed_norm",
    "NaP": "normalize_and_project",
    "AdamWN": "weight_norm_control",
    "RV": "rotational",
    "RV-AdamW": "rotational",
    "RV-SGDM": "rotational",
    "RV-Lion": "rotational",
    "AdamH": "hyperball",
    "MuonH": "hyperball",
    "CPR": "constrained",
    "SPD": "selective_projection",
    "L2-SP": "l2_to_anchor",
    "tau-norm": "tau_normalize",
    "ART": "hyper_sparse",
}
"""Published names of rules (ART is the training around HyperSparse's penalty)."""


def canonical(name: str) -> str:
    """Return a rule's name in the table for any spelling of it, or for a published name; others come back unchanged.

    >>> canonical("AdamC"), canonical("l2-sp"), canonical("WeightNormControl"), canonical("loss-l2")
    ('corrected', 'l2_to_anchor', 'weight_norm_control', 'loss-l2')
    """
    return name if name in TABLE else _SPELLINGS.get(_squeezed(name), name)


def _squeezed(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


_SPELLINGS = {_squeezed(alias): name for alias, name in ALIASES.items()} | {_squeezed(name): name for name in TABLE}


def find(name: str) -> Entry:
    """Return what there is to know of a rule.

    Args:
        name: A name in `TABLE` in any spelling, one of `ALIASES`, that of an installed plugin (entry point
            ``rule.NAME``), or ``package.module:Class`` or ``path/to/file.py:Class``, a frozen dataclass derived from
            `decaylab.decay.Rule`.

    Raises:
        DecaylabError: There is no such rule, or it cannot be imported.
    """
    if (own := canonical(name)) in TABLE:
        return TABLE[own]
    if is_reference(name):
        return _adopted(name, name)
    offered = plugins("rule")
    if name in offered:
        return _adopted(name, offered[name])
    raise unknown("decay rule", name, [*TABLE, *offered, "package.module:Class"])


def _adopted(name: str, path: str) -> Entry:
    from decaylab.decay.rule import Rule  # torch, which the user's rule has loaded

    found = load(path)
    if not (isinstance(found, type) and issubclass(found, Rule) and dataclasses.is_dataclass(found)):
        raise DecaylabError(f"{name} is no decay rule: expected a dataclass derived from decaylab.decay.Rule")
    lines = [line.strip() for line in (found.__doc__ or "").strip().splitlines()]
    options = [item for item in dataclasses.fields(found) if item.name not in ("schedule", "total_steps")]
    return Entry(
        name=name,
        path=path,
        family="your own",
        text=lines[0] if lines else "",
        equation="see its source",
        applies_to="see its source",
        memory="see its source",
        zero_grad="see its source",
        paper="",
        options=tuple(Option(item.name, _default(item), "") for item in options),
    )


def _default(item: dataclasses.Field[Any]) -> str:
    if item.default is not dataclasses.MISSING:
        return repr(item.default)
    return "required" if item.default_factory is dataclasses.MISSING else "made anew"
