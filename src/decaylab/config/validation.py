"""Which settings cannot be trained? Asked before anything is built. Nothing here imports torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from decaylab.components.optimizers import OPTIMIZERS
from decaylab.config.component_checks import check_images, check_names, check_transformer
from decaylab.conventions.table import RULE_CONVENTIONS, Setting, get
from decaylab.errors import DecaylabError, shown, unknown

if TYPE_CHECKING:
    from decaylab.config.schema import AnyRun, LanguageRun, VisionRun

# Penalties in the loss itself, and the factor c of their gradient c * weight_decay * w.
LOSS_PENALTIES = {"loss-l2": 2.0, "loss-l2-half": 1.0}
_LONGEST_PATH = 4096 + len("folder:")


def check(config: AnyRun) -> None:
    """Refuse settings that cannot be trained, with one line that says which and why.

    Raises:
        DecaylabError: See the message.
    """
    from decaylab.config.schema import VisionRun  # which reads settings, and checks them when it has

    for name, value in _positive(config):
        if not 0 < value < math.inf:
            raise DecaylabError(f"{name} must be positive and finite, not {value}")
    for name, value in _not_negative(config):
        if not 0 <= value < math.inf:
            raise DecaylabError(f"{name} must be finite and not negative, it is {value}")
    for name, value in _shares(config):
        if not 0 <= value < 1:
            raise DecaylabError(f"{name} is a share from 0 to 1 (1 excluded), not {value}")
    for coefficient in config.averages.ema:
        if not 0 < coefficient < 1:
            raise DecaylabError(f"averages.ema coefficients lie between 0 and 1, not {coefficient}")
    if not -(2**63) <= config.seed < 2**63:
        raise DecaylabError(f"seed must be below 2^63, not {config.seed}")
    _check_digests(config)
    check_names(config)
    _check_decay(config)
    _check_arithmetic(config)
    _check_plan(config)
    if isinstance(config, VisionRun):
        _check_vision(config)
    else:
        _check_language(config)


def _positive(config: AnyRun) -> Iterator[tuple[str, float]]:
    yield "optimizer.lr", config.optimizer.lr
    for name in ("batch_size", "accumulation", "epochs", "steps"):
        if hasattr(config, name):
            yield name, getattr(config, name)
    if config.optimizer.clip not in (None, math.inf):  # an infinite one only measures
        yield "optimizer.clip", config.optimizer.clip or 0.0
    for name in ("every", "batches", "batch_size", "prompt_tokens"):
        yield f"evaluation.{name}", getattr(config.evaluation, name)
    for name in ("every", "curvature_every", "curvature_points"):
        yield f"probes.{name}", getattr(config.probes, name)
    for name in ("width", "blocks", "num_layers", "num_heads", "context"):
        if hasattr(config.model, name):
            yield f"model.{name}", getattr(config.model, name)
    optional = {
        "evaluation.top_k": config.evaluation.top_k,
        "model.vocab_size": getattr(config.model, "vocab_size", None),
        "data.train_size": getattr(config.data, "train_size", None),
        "data.train_tokens": getattr(config.data, "train_tokens", None),
    }
    yield from ((name, value) for name, value in optional.items() if value is not None)


def _not_negative(config: AnyRun) -> Iterator[tuple[str, float]]:
    yield "decay.weight_decay", config.decay.weight_decay
    yield "optimizer.eps", config.optimizer.eps
    yield "snapshots_every", config.snapshots_every
    yield "divergence.patience", config.divergence.patience
    if config.divergence.rise is not None:
        yield "divergence.rise", config.divergence.rise
    for name in ("seed", "init_std"):
        for part, settings in (("data", config.data), ("model", config.model)):
            value = getattr(settings, name, None)
            if value is not None:  # of images: the run's own seed
                yield f"{part}.{name}", value


def _shares(config: AnyRun) -> Iterator[tuple[str, float]]:
    yield "optimizer.momentum", config.optimizer.momentum
    yield from (("optimizer.betas", beta) for beta in config.optimizer.betas)
    yield "averages.uniform_from", config.averages.uniform_from
    if hasattr(config.data, "label_noise"):
        yield "data.label_noise", config.data.label_noise
    if hasattr(config.model, "dropout"):
        yield "model.dropout", config.model.dropout


def _check_digests(config: AnyRun) -> None:
    """Refuse digests that are none, or of nothing."""
    origin = config.init_from
    digests: dict[str, tuple[str | None, str, str]] = {
        "data.sha256": (getattr(config.data, "sha256", None), str(getattr(config.data, "corpus", "")), "folder:"),
        "evaluation.text_sha256": (config.evaluation.text_sha256, config.evaluation.text_file or "", ""),
        "init_from.sha256": (origin.sha256 if origin else None, origin.run if origin else "", "hf:"),
    }
    for name, (digest, path, prefix) in digests.items():
        if digest is None:
            continue
        if not path or not path.startswith(prefix):
            raise DecaylabError(f"{name} is the digest of a file that the run reads, and it reads none: leave it out")
        if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise DecaylabError(f"{name} must be a SHA-256 in 64 hexadecimal digits, not {shown(digest)}")


def _check_decay(config: AnyRun) -> None:
    lr, weight_decay = config.optimizer.lr, config.decay.weight_decay
    if (share := _share(config)) >= 1:
        product = "" if share == weight_decay else f"lr x weight decay is {lr * weight_decay:g}, so "
        raise DecaylabError(
            f"{product}one step of {config.decay.rule} would take {share:g} of each weight away and erase or flip it; "
            "lower one of them"
        )
    follows, origin = config.decay.follows_norms, config.decay.norms_from
    if follows and not origin:
        raise DecaylabError("the rule follow_norms needs decay.norms_from, the id of a run with record_norms")
    if origin and not follows:
        raise DecaylabError("decay.norms_from is for the rule follow_norms: leave it out, or name that rule")
    if weight_decay and not config.decay.roles:
        raise DecaylabError("decay.roles is empty, so that nothing would decay: name some, or set weight_decay to 0")


def _share(config: AnyRun) -> float:
    """Return which share of each weight a step at the peak learning rate takes; 0 where that is not known before it.

    SGD alone takes a penalty's gradient as it is: Adam and sign descent scale it to steps of bounded size, and so does
    clipping where the penalty is in the loss. Rules that state no convention steer a norm and never erase a weight, or
    are asked when they are tried out (`decaylab.train.build.try_out`).
    """
    rule = config.decay.rule.replace("-", "_")
    if rule not in RULE_CONVENTIONS or "max_lr" in dict(config.decay.options):
        return 0.0
    convention = get(RULE_CONVENTIONS[rule])
    clipped = config.decay.rule in LOSS_PENALTIES and config.optimizer.clip is not None
    row = OPTIMIZERS.get(config.optimizer.name)
    if convention.through_momentum and (row is None or row.bounded_step or clipped):
        return 0.0
    lr = config.optimizer.lr
    return convention.share(lr, config.decay.weight_decay, Setting(lr=lr))  # of one step: no momentum has gathered yet


def _check_arithmetic(config: AnyRun) -> None:
    if not math.isfinite(config.optimizer.dampening):
        raise DecaylabError(f"optimizer.dampening must be finite, not {config.optimizer.dampening}")
    if config.batch_size % config.accumulation:
        raise DecaylabError(f"batch_size {config.batch_size} is not a multiple of accumulation {config.accumulation}")
    if config.stochastic_rounding and config.weights != "bfloat16":
        raise DecaylabError("stochastic_rounding needs weights = bfloat16")
    if config.weights == "bfloat16" and config.precision == "float16":
        raise DecaylabError("weights = bfloat16 goes with precision = float32 or bfloat16, not with float16")


def _check_plan(config: AnyRun) -> None:
    """Refuse what would be asked for at a place where nothing is."""
    length: int = getattr(config, "epochs", 0) or getattr(config, "steps", 0)
    for place in config.snapshots_at:
        if not 0 <= place <= length:
            raise DecaylabError(f"snapshots_at {place} lies outside of the run, which goes from 0 to {length}")
    kept = ["iterate", *(f"ema{c:g}" for c in config.averages.ema), *(["uniform"] if config.averages.uniform else [])]
    for name in config.probes.curvature_at if config.probes.curvature else ():
        if name not in kept:
            raise unknown("place in probes.curvature_at", name, kept)
    if config.init_from is not None and not config.init_from.run.removeprefix("hf:"):
        raise DecaylabError("init_from.run is missing: give a run's id, or hf:FOLDER")


def _check_vision(config: VisionRun) -> None:
    check_images(config)
    if config.weights == "bfloat16" and config.precision != "bfloat16":
        raise DecaylabError("images are float32: weights = bfloat16 needs precision = bfloat16 too")
    if config.evaluation.text_file is not None or config.evaluation.prompt is not None:
        raise DecaylabError("evaluation.text_file and evaluation.prompt are for language runs")


def _without_bytes(path: str) -> str:
    """Leave out what Python puts for bytes of a file's name that are not UTF-8."""
    return "".join(character for character in path if not "\udc80" <= character <= "\udcff")


def _check_language(config: LanguageRun) -> None:
    check_transformer(config)
    if not config.evaluation.temperature >= 0:
        raise DecaylabError(f"evaluation.temperature must not be negative, it is {config.evaluation.temperature}")
    origin = "" if config.init_from is None else config.init_from.run
    paths = {"evaluation.text_file": config.evaluation.text_file or "", "data.corpus": config.data.corpus}
    for name, path in (paths | {"init_from.run": origin}).items():
        if "\0" in path:
            raise DecaylabError(f"{name} has a zero character, which no file's name has")
        if len(path) > _LONGEST_PATH or any("\ud800" <= character <= "\udfff" for character in _without_bytes(path)):
            raise DecaylabError(f"{name} is {shown(path)}, which no file can be called")
    prompt = config.evaluation.prompt
    if prompt == "":
        raise DecaylabError("evaluation.prompt is empty: give at least one character, or leave it out")
    if prompt is not None and any("\ud800" <= character <= "\udfff" for character in prompt):
        raise DecaylabError("evaluation.prompt is not text in UTF-8: convert it")
