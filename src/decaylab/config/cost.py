"""How much work a run is, roughly: to train long runs first and to choose threads. Nothing here imports torch."""

from __future__ import annotations

from decaylab.config.schema import FOREIGN, AnyRun, LanguageRun, VisionRun

_TRAIN_SIZE = {"digits": 1797, "cifar10": 50_000, "cifar100": 50_000}
_IMAGE = {"digits": 8, "cifar10": 32, "cifar100": 32}
# Multiply-adds of one 32 x 32 image at width 64, in millions; convolutions scale with the square of the width.
_MACS_AT_32 = {"vgg16": 313, "vgg16_bn": 313, "resnet18": 557, "resnet34": 1160, "resnet_small": 96, "vgg_small": 40}


def flops_per_step(config: AnyRun) -> float:
    """Return the floating-point operations of one step, forward and backward, within about a factor of two."""
    if isinstance(config, VisionRun):
        model = config.model
        macs = _MACS_AT_32[model.architecture] * 1e6 * (model.width / 64) ** 2 * (_IMAGE[config.data.dataset] / 32) ** 2
        blocks = model.blocks / 2 if model.architecture == "resnet_small" else 1.0
        return 6 * macs * blocks * config.batch_size
    model_ = config.model
    tokenizer, _, size = config.data.tokenizer.partition(":")
    vocabulary = model_.vocab_size or int(size or {"ascii": 128, "bytes": 256}.get(tokenizer, 50_304))
    weights = 12 * model_.num_layers * model_.width**2 + vocabulary * model_.width
    tokens = config.batch_size * model_.context
    return 6.0 * tokens * (weights + model_.num_layers * model_.width * model_.context)


def num_steps(config: AnyRun) -> int:
    """Return the steps of a run."""
    if isinstance(config, LanguageRun):
        return config.steps
    size = config.data.train_size or _TRAIN_SIZE[config.data.dataset]
    return config.epochs * -(-size // config.batch_size)


def cost(config: AnyRun) -> float:
    """Return the relative cost of a run: a floor for each step, since small nets cost calls rather than arithmetic."""
    return num_steps(config) * (1e-3 + flops_per_step(config) / 5e10)


def threads_hint(config: AnyRun) -> int:
    """Return how many threads a run can use well on a CPU: 1 for small nets, 0 for "all".

    Below about a billion operations a step, handing work to a second thread costs more than it saves: one process a
    core with one thread each was 8 times faster than one process with all threads for the small networks.
    """
    return 1 if flops_per_step(config) < 2e10 else 0


def needs(config: AnyRun) -> tuple[str, ...]:
    """Return the ids of the runs that have to be trained before this one."""
    source = config.init_from
    return () if source is None or source.run.startswith(FOREIGN) else (source.run,)
