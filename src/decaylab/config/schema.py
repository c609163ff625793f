"""What is trained: every setting that changes a run's result, as frozen dataclasses.

A run *is* its configuration. ``run_id`` hashes what differs from the defaults, so a setting added later leaves the
ids of existing runs alone; device and number of workers are not settings and do not enter. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from decaylab.config.choices import choice
from decaylab.references import is_reference
from decaylab.schedules import Schedule

# What init_from.run begins with when it names a folder in the format of transformers.
FOREIGN = "hf:"
# What data.corpus begins with when it names a folder of text files.
FOLDER = "folder:"

Precision = Literal["float32", "bfloat16", "float16"]
Options = tuple[tuple[str, bool | int | float | str], ...]  # values are read as the first of these that fits


@dataclass(frozen=True, kw_only=True)
class VisionModel:
    """A convolutional network for images.

    Attributes:
        architecture: Which network; ``vgg_small`` and ``resnet_small`` are the same families for 8x8 images; or one of
            your own, as ``package.module:name`` or ``path/to/file.py:name``.
        width: Channels of the first stage.
        blocks: Residual blocks a stage (``resnet_small`` only).
        scale_invariant: Fixed last layer, no learnable norm parameters, a norm in each shortcut: the outputs do not
            change when all weights are scaled (residual networks only).
        activation: ``relu`` or ``gelu``.
        options: Further settings of an architecture of your own, as (name, value) pairs.
    """

    architecture: Annotated[str, choice("architecture")] = "resnet_small"
    width: int = 8
    blocks: int = 2
    scale_invariant: bool = False
    activation: Literal["relu", "gelu"] = "relu"
    options: Options = ()


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """A GPT-2 style transformer.

    Attributes:
        num_layers: Transformer blocks.
        num_heads: Attention heads; must divide the width.
        width: Size of the residual stream.
        context: Tokens a sequence.
        vocab_size: Rows of the embedding; the tokenizer's own number by default, 50304 for GPT-2's (50257 padded to
            a multiple of 64, as nanoGPT does).
        bias: Whether linear and norm layers have biases.
        tied: Whether the head shares the embedding's weights.
        init_std: Standard deviation at initialisation; residual projections get it over sqrt(2 num_layers).
        activation: ``gelu``, ``gelu_tanh`` (its approximation in the published GPT-2) or ``relu``.
        branch_norm: Normalise the output of each residual branch, so that hidden matrices are scale-free.
        qk_norm: Normalise queries and keys.
        dropout: Share of dropped activations.
        attention: ``auto``, or force the fused (``flash``) or the materialised (``math``) kernel.
        architecture: ``gpt2``, or one of your own, as ``package.module:name`` or ``path/to/file.py:name``.
        options: Further settings of an architecture of your own, as (name, value) pairs.
    """

    num_layers: int = 12
    num_heads: int = 12
    width: int = 768
    context: int = 1024
    vocab_size: int | None = None
    bias: bool = False
    tied: bool = True
    init_std: float = 0.02
    activation: Literal["gelu", "gelu_tanh", "relu"] = "gelu"
    branch_norm: bool = False
    qk_norm: bool = False
    dropout: float = 0.0
    attention: Literal["auto", "flash", "math"] = "auto"
    architecture: Annotated[str, choice("language architecture")] = "gpt2"
    options: Options = ()


@dataclass(frozen=True, kw_only=True)
class VisionData:
    """Images and labels.

    Attributes:
        dataset: ``digits`` is embedded; ``cifar10`` and ``cifar100`` are fetched by ``decaylab data get``; or one
            of your own, as ``package.module:name`` or ``path/to/file.py:name``.
        train_size: Training images to keep; all by default. For digits the rest is the test set.
        label_noise: Share of training labels that are flipped to another class.
        parity: Ask only whether the class is odd or even: two classes instead of all.
        seed: Which images are kept and which labels flip; independent of the run's seed. None: the run's seed decides
            that too, so that a spread over seeds has the spread over draws of data in it.
        augment: Random horizontal flips and crops.
        options: Further settings of a data set of your own, as (name, value) pairs.
    """

    dataset: Annotated[str, choice("dataset")] = "digits"
    train_size: int | None = None
    label_noise: float = 0.0
    parity: bool = False
    seed: int | None = 0
    augment: bool = False
    options: Options = ()


@dataclass(frozen=True, kw_only=True)
class LanguageData:
    """A stream of tokens.

    Attributes:
        corpus: ``stdlib`` (Python's own sources, embedded), ``openwebtext``, ``folder:PATH`` of text files, or one
            of your own, as ``package.module:name`` or ``path/to/file.py:name``.
        tokenizer: ``bytes``, ``ascii`` (128 symbols), ``bpe:SIZE`` trained on the corpus, or ``gpt2``.
        train_tokens: Use only the first so many training tokens; all by default.
        sha256: Digest of a folder's text, filled in when the run is made: with it, and not with the path, it is part of
            the run's id. Given, the folder must have that text.
    """

    corpus: str = "stdlib"
    tokenizer: str = "bytes"
    train_tokens: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """The rule that turns gradients into steps; weight decay is not part of it.

    Attributes:
        name: ``sgd``, ``adamw`` (Adam's step; the decay comes from the decay rule), ``signsgd``, or any other that
            takes parameter groups and ``lr``, as ``torch.optim:NAdam`` or ``path/to/file.py:name``.
        lr: Learning rate at the peak of the schedule.
        momentum: For sgd and signsgd.
        dampening: For sgd with momentum.
        betas: For adamw.
        eps: For adamw, added after the bias correction.
        clip: Largest norm of the whole gradient; none by default.
        options: Further settings of such an optimizer, as (name, value) pairs.
    """

    name: Annotated[str, choice("optimizer")] = "sgd"
    lr: float = 0.1
    momentum: float = 0.0
    dampening: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    clip: float | None = None
    options: Options = ()


@dataclass(frozen=True, kw_only=True)
class Decay:
    """Weight decay.

    Attributes:
        rule: A name from ``decaylab rules`` (or one under which it was published, such as AdamC, CWD or L2-SP), or
            ``loss-l2`` / ``loss-l2-half``: the penalty ``weight_decay * ||w||^2`` (or half of it) in the loss itself,
            so that clipping sees its gradient.
        weight_decay: Its coefficient.
        roles: Which parameters decay: any of matrix, embedding, head, norm, bias, scalar; or ``all``.
        options: Further options of the rule, as (name, value) pairs.
        norms_from: For the rule follow_norms: the id of the run whose norms are followed, one with ``record_norms``.
    """

    rule: str = "decoupled"
    weight_decay: float = 0.0
    roles: tuple[str, ...] = ("all",)
    options: Options = ()
    norms_from: str | None = None

    @property
    def follows_norms(self) -> bool:
        """Whether the rule is follow_norms, in any of its spellings."""
        return self.rule.lower().replace("-", "").replace("_", "") == "follownorms"


@dataclass(frozen=True, kw_only=True)
class Averages:
    """Averages of the weights, kept beside the iterate and evaluated with it.

    Attributes:
        ema: Coefficients b of exponential moving averages, a <- b a + (1 - b) w after every step.
        uniform: Also the plain mean of all iterates.
        uniform_from: Share of the run after which the plain mean begins.
    """

    ema: tuple[float, ...] = ()
    uniform: bool = False
    uniform_from: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """When and on what the model is evaluated.

    Attributes:
        every: Epochs (vision) or steps (language) between evaluations; the end is always evaluated.
        batches: Fixed batches of each split (language only; vision uses the whole sets).
        batch_size: Examples a batch.
        text_file: A text file; the loss of its tokens is measured at the end, as ``test/loss`` (language only).
        text_sha256: Digest of that file, filled in when the run is made: with it, and not with the path, it is part of
            the run's id. Given, the file must have that content.
        prompt: A text that the model continues at the end; it goes into the run's summary (language only).
        prompt_tokens: Tokens that are added to it, drawn with the run's seed.
        temperature: Divides the logits there; 0 always takes the most likely token.
        top_k: Draw among the k most likely tokens only; among all by default.
    """

    every: int = 1
    batches: int = 50
    batch_size: int = 1000
    text_file: str | None = None
    text_sha256: str | None = None
    prompt: str | None = None
    prompt_tokens: int = 100
    temperature: float = 0.8
    top_k: int | None = None


@dataclass(frozen=True, kw_only=True)
class Probes:
    """What is measured while training.

    Attributes:
        names: Probes read at a training step, such as ``norms`` and ``effective_lr``.
        every: Steps between two readings.
        curvature: Probes read at an evaluation, such as ``hessian_trace`` and ``jacobian``.
        curvature_every: Evaluations between two such readings; the last evaluation always has one.
        curvature_points: Training points they use.
        curvature_at: Where: ``iterate`` or an average (``ema0.999``, ``uniform``).
    """

    names: tuple[str, ...] = ("norms", "effective_lr")
    every: int = 100
    curvature: tuple[str, ...] = ()
    curvature_every: int = 1
    curvature_points: int = 5000
    curvature_at: tuple[str, ...] = ("iterate",)


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """When a run counts as diverged. NaN or an infinite loss always does.

    Attributes:
        rise: A smoothed training loss this much above its best so far is a spike; none: only NaN counts.
        patience: Steps within which a spike must come back.
        stop: Whether a spike that does not come back ends the run, or is only recorded.
    """

    rise: float | None = None
    patience: int = 1000
    stop: bool = True


@dataclass(frozen=True, kw_only=True)
class InitFrom:
    """Start from another run's snapshot or checkpoint, or from published weights, instead of from random ones.

    Attributes:
        run: The other run's id; or ``hf:FOLDER``, a GPT-2 saved by transformers, whose settings this run's model has.
        step: The step of the snapshot, or of a checkpoint that an interrupted or diverged run has left.
        weights: ``iterate`` or one of its averages.
        optimizer: Whether the optimizer's state comes along.
        sha256: Digest of the files of ``hf:FOLDER``, filled in when the run is made: with it, and not with the path, it
            is part of the run's id. Given, the folder must have those files.
    """

    run: str
    step: int = 0
    weights: str = "iterate"
    optimizer: bool = False
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """What vision and language runs have in common.

    Attributes:
        optimizer: Turns gradients into steps.
        decay: Weight decay.
        schedule: Learning rate by step.
        averages: Averages of the weights.
        evaluation: When and on what to evaluate.
        probes: What is measured.
        divergence: When a run is given up.
        precision: Arithmetic of the forward and backward pass; float16 uses a loss scaler.
        weights: Type of the stored weights; bfloat16 shows on purpose that 256 + 1 = 256 there.
        stochastic_rounding: With bfloat16 weights: round each update up or down at random, without bias.
        accumulation: Micro-batches a step.
        compile: Compile the model.
        seed: Initialisation, data order and dropout.
        init_from: Start from another run's snapshot.
        snapshots_every: Epochs (vision) or steps (language) between kept snapshots; 0 keeps none.
        snapshots_at: Further epochs (vision) or steps (language) after which one is kept.
        snapshot_optimizer: Keep the optimizer's state in them.
        record_norms: Keep the norm of every weight tensor after every step, for another run to follow
            (``decay.norms_from``).
        code_sha256: Digest of the files with the run's components of your own; filled in. Other code is another run.
    """

    optimizer: Optimizer = field(default_factory=Optimizer)
    decay: Decay = field(default_factory=Decay)
    schedule: Schedule = field(default_factory=Schedule)
    averages: Averages = field(default_factory=Averages)
    evaluation: Evaluation = field(default_factory=Evaluation)
    probes: Probes = field(default_factory=Probes)
    divergence: Divergence = field(default_factory=Divergence)
    precision: Precision = "float32"
    weights: Literal["float32", "bfloat16"] = "float32"
    stochastic_rounding: bool = False
    accumulation: int = 1
    compile: bool = False
    seed: int = 0
    init_from: InitFrom | None = None
    snapshots_every: int = 0
    snapshots_at: tuple[int, ...] = ()
    snapshot_optimizer: bool = False
    record_norms: bool = False
    code_sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class VisionRun(Run):
    """One training of an image classifier.

    Attributes:
        model: The network.
        data: The images.
        batch_size: Images a step.
        epochs: Passes over the training set.
    """

    model: VisionModel = field(default_factory=VisionModel)
    data: VisionData = field(default_factory=VisionData)
    batch_size: int = 128
    epochs: int = 100


@dataclass(frozen=True, kw_only=True)
class LanguageRun(Run):
    """One training of a language model.

    Attributes:
        model: The transformer.
        data: The tokens.
        batch_size: Sequences a step, over all micro-batches and processes.
        steps: Optimizer steps.
    """

    optimizer: Optimizer = field(default_factory=lambda: Optimizer(name="adamw", lr=6e-4, clip=1.0))
    decay: Decay = field(default_factory=lambda: Decay(roles=("matrix", "embedding", "head")))
    schedule: Schedule = field(default_factory=lambda: Schedule(kind="cosine", warmup_steps=400))
    evaluation: Evaluation = field(default_factory=lambda: Evaluation(every=200, batches=50, batch_size=16))
    model: LanguageModel = field(default_factory=LanguageModel)
    data: LanguageData = field(default_factory=LanguageData)
    batch_size: int = 256
    steps: int = 50_000


AnyRun = VisionRun | LanguageRun
KINDS: dict[str, type[AnyRun]] = {"vision": VisionRun, "language": LanguageRun}


def references_of(config: Run) -> tuple[str, ...]:
    """Return the references to components of the user's that a run names, see `decaylab.references`."""
    names = [config.decay.rule, config.optimizer.name, *config.probes.names, *config.probes.curvature]
    if isinstance(config, VisionRun):
        names += [config.model.architecture, config.data.dataset]
    elif isinstance(config, LanguageRun):
        names += [config.model.architecture, *([] if config.data.corpus.startswith(FOLDER) else [config.data.corpus])]
    return tuple(name for name in names if is_reference(name))


def reads_files(config: object) -> bool:
    """Whether a run reads files or folders of the user's, whose content is part of what it is."""
    if isinstance(config, Run) and references_of(config):
        return True
    if not isinstance(config, LanguageRun):
        return False
    origin = config.init_from
    return (
        config.data.corpus.startswith(FOLDER)
        or config.evaluation.text_file is not None
        or (origin is not None and origin.run.startswith(FOREIGN))
    )


def kind(config: AnyRun) -> Literal["vision", "language"]:
    """Return ``"vision"`` or ``"language"``."""
    return "vision" if isinstance(config, VisionRun) else "language"
