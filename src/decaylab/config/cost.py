"""How much work a run is, roughly: to train long runs first and to choose threads. Nothing here imports torch."""

from __future__ import annotations

from decaylab.components.architectures import ARCHITECTURES, LANGUAGE_ARCHITECTURES
from decaylab.components.datasets import IMAGE_DATA, ImageData
from decaylab.config.schema import FOREIGN, AnyRun, LanguageRun, VisionRun

# What stands for the sizes of a component of the user's, of which nothing is known before it is loaded.
_IMAGE_SIZE, _TRAIN_SIZE = 32, 50_000


def flops_per_step(config: AnyRun) -> float:
    """Return the floating-point operations of one step, forward and backward, within about a factor of two."""
    if isinstance(config, VisionRun):
        size = _image_data(config).image_size or _IMAGE_SIZE
        own = ARCHITECTURES.get(config.model.architecture)
        macs = (own and own.macs) or ARCHITECTURES["resnet_small"].macs
        assert macs is not None
        return 6 * macs(config.model, size) * config.batch_size
    model = config.model
    tokenizer, _, size_of_bpe = config.data.tokenizer.partition(":")
    vocabulary = model.vocab_size or int(size_of_bpe or {"ascii": 128, "bytes": 256}.get(tokenizer, 50_304))
    row = LANGUAGE_ARCHITECTURES.get(model.architecture, LANGUAGE_ARCHITECTURES["gpt2"])
    assert row.macs is not None
    return 6.0 * config.batch_size * row.macs(model, vocabulary)


def _image_data(config: VisionRun) -> ImageData:
    return IMAGE_DATA.get(config.data.dataset, ImageData(name=config.data.dataset, help="", read=""))


def num_steps(config: AnyRun) -> int:
    """Return the steps of a run."""
    if isinstance(config, LanguageRun):
        return config.steps
    size = config.data.train_size or _image_data(config).train_size or _TRAIN_SIZE
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
    start = () if source is None or source.run.startswith(FOREIGN) else (source.run,)
    norms = () if config.decay.norms_from in (None, *start) else (config.decay.norms_from,)
    return (*start, *norms)
