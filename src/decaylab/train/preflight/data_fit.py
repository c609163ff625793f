"""Do a run's settings fit its data, and is that data whole? Asked before the run enters the store; the data is read."""

from __future__ import annotations

from pathlib import Path

from decaylab import data, schedules
from decaylab.config.schema import FOREIGN, AnyRun, LanguageRun, VisionRun
from decaylab.data.tokenizer import lost_characters
from decaylab.errors import DecaylabError
from decaylab.train.build import embedding_rows
from decaylab.train.checkpoints.initial_weights import foreign_weights
from decaylab.train.preflight.held_out_text import read_text
from decaylab.train.preflight.inputs import checkpoint_digest
from decaylab.train.preflight.memory import require_memory


def require_fit(config: AnyRun, device: str, *, processes: int = 1) -> None:
    """Return when the data of a run can be read and is enough for it, and the run not sure to be too large.

    A text that was never encoded is encoded now, as training would do first.

    Args:
        config: The run's settings.
        device: What it is to be trained on, as `decaylab.launch.devices.require_device` takes it.
        processes: Processes that train it together.

    Raises:
        DecaylabError: The data is damaged (the message names the file and what was expected) or too short, its
            vocabulary too large for the model, the run too short for its warm-up, the folder that it starts from
            damaged or of another model, or the device's memory too small.
    """
    if isinstance(config, VisionRun):
        source = config.data
        images = data.vision(
            source.dataset,
            source.train_size,
            source.label_noise,
            config.seed if source.seed is None else source.seed,
            parity=source.parity,
            options=source.options,
        )
        schedules.value(
            config.schedule, 0, config.optimizer.lr, config.epochs * -(-len(images.train_y) // config.batch_size)
        )
        image = (images.train_x.shape[1], images.train_x.shape[-1])
        require_memory(config, 0, device, processes=processes, image=image)
        return
    schedules.value(config.schedule, 0, config.optimizer.lr, config.steps)
    stream = data.text(config.data.corpus, config.data.tokenizer, sha256=config.data.sha256)
    tokens = {"training": len(stream.train), "validation": len(stream.val)}
    if config.data.train_tokens is not None:
        tokens["training"] = min(tokens["training"], config.data.train_tokens)
    side = min(tokens, key=lambda name: tokens[name])
    if tokens[side] <= config.model.context:
        raise DecaylabError(
            f"model.context {config.model.context} is too long: the {side} text has {tokens[side]:,} tokens, so the "
            f"longest context is {tokens[side] - 1:,}"
        )
    rows = embedding_rows(config.model, stream.vocab_size)
    if config.init_from is not None and config.init_from.run.startswith(FOREIGN):
        folder = Path(config.init_from.run.removeprefix(FOREIGN)).expanduser()
        checkpoint_digest(folder, config.init_from.sha256)
        foreign_weights(folder, config.model, rows)
    path = config.evaluation.text_file
    if path is not None and len(stream.encode(read_text(path)[:64])) < 2:
        raise DecaylabError(f"the test text {path} has fewer than two tokens: give a longer one")
    require_memory(config, stream.vocab_size, device, processes=processes)


def lost_in_texts(config: AnyRun) -> str:
    """Return the characters of a run's prompt and of its test text that its tokenizer does not know."""
    if not isinstance(config, LanguageRun):
        return ""
    path = config.evaluation.text_file
    text = (config.evaluation.prompt or "") + (read_text(path) if path is not None else "")
    if not text:
        return ""
    stream = data.text(config.data.corpus, config.data.tokenizer, sha256=config.data.sha256)
    return lost_characters(stream.tokenizer, text)
