"""The end of a language run: a test text, a prompt, kept weights; and the way from and to transformers."""

import math
from dataclasses import replace

import pytest
import torch

from decaylab.cli import main
from decaylab.config.cost import needs
from decaylab.config.schema import (
    Averages,
    Divergence,
    Evaluation,
    InitFrom,
    LanguageData,
    LanguageModel,
    LanguageRun,
    Optimizer,
    Probes,
)
from decaylab.data.tokenizer import open_tokenizer
from decaylab.errors import DecaylabError
from decaylab.models import GPT, transformers_format
from decaylab.schedules import Schedule
from decaylab.train.checkpoints.load_model import load_finished
from decaylab.train.fit import fit
from decaylab.train.generation import complete
from decaylab.train.peak_flops import peak_flops

RUN = LanguageRun(
    model=LanguageModel(num_layers=1, num_heads=2, width=16, context=16),
    data=LanguageData(tokenizer="ascii"),
    optimizer=Optimizer(name="adamw", lr=1e-2),
    schedule=Schedule(kind="constant"),
    averages=Averages(ema=(0.5,)),
    evaluation=Evaluation(every=10, batches=1, batch_size=4, prompt="def f", prompt_tokens=12, top_k=5),
    probes=Probes(names=(), every=2),
    batch_size=4,
    steps=6,
)
TEXT = "for name in names:\n    print(name)\n"  # 35 tokens: two whole sequences and a rest of two


@pytest.fixture(scope="module", autouse=True)
def _corpus(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("DECAYLAB_HOME", str(tmp_path_factory.mktemp("data")))
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def _home(_corpus):
    """Instead of the suite's fixture with the same name, which gives every test an empty folder."""


@pytest.fixture(scope="module")
def trained(_corpus, tmp_path_factory):
    """A finished run: its records, how it ended, and its folder."""
    folder = tmp_path_factory.mktemp("run")
    text = folder / "test.txt"
    text.write_text(TEXT)
    records = []
    config = replace(RUN, evaluation=replace(RUN.evaluation, text_file=str(text)))
    outcome = fit(config, lambda m: records.append(dict(m)), folder=folder / "files")
    return records, outcome, folder / "files"


def test_the_test_loss_is_the_mean_over_the_tokens_of_the_file(trained):
    records, outcome, folder = trained
    for weights, prefix in (("iterate", ""), ("ema0.5", "ema0.5/")):
        model, tokenizer = load_finished(folder, weights=weights)
        ids = [int(i) for part in tokenizer.encode_documents([TEXT.encode()]) for i in part]
        losses = []
        for position in range(1, len(ids)):
            first = (position - 1) // 16 * 16
            with torch.no_grad():
                logits = model(torch.tensor([ids[first:position]]))[0, -1]
            losses.append(-logits.log_softmax(0)[ids[position]].item())
        assert outcome.summary[f"{prefix}test/loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert records[-1]["step"] == RUN.steps
    assert {"test/loss", "ema0.5/test/loss"} <= records[-1].keys()


def test_the_prompt_is_completed_and_can_be_again(trained, capsys):
    _, outcome, folder = trained
    completion = outcome.summary["completion"]
    assert completion.startswith("def f")
    assert len(completion) > len("def f")
    arguments = ["--prompt", "def f", "--tokens", "12", "--top-k", "5"]
    assert main(["sample", str(folder), *arguments]) == 0
    assert capsys.readouterr().out == completion + "\n"
    assert main(["sample", str(folder), *arguments, "--seed", "1"]) == 0
    assert capsys.readouterr().out != completion + "\n"


def test_ids_beyond_the_tokenizer_are_never_drawn():
    tokenizer = open_tokenizer("ascii")
    torch.manual_seed(0)
    model = GPT(tokenizer.vocab_size + 64, 16, 1, 1, 8)  # at first all ids are about as likely
    prompt = torch.zeros(1, 1, dtype=torch.long)
    assert model.generate(prompt, 30).max() >= tokenizer.vocab_size
    assert model.generate(prompt, 30, num_ids=tokenizer.vocab_size).max() < tokenizer.vocab_size
    assert complete(model, tokenizer, "a", num_tokens=30, temperature=5.0).startswith("a")


def test_convert_and_start_from_it(trained, tmp_path, capsys):
    records, _, folder = trained
    hf = tmp_path / "hf"
    assert main(["convert", str(folder), "--to", str(hf)]) == 0
    child = replace(RUN, init_from=InitFrom(run=f"hf:{hf}"), evaluation=Evaluation(every=10, batches=1, batch_size=4))
    assert needs(child) == ()
    begun = []
    fit(child, lambda m: begun.append(dict(m)))
    last = next(r for r in reversed(records) if "val/loss" in r)
    assert begun[0]["val/loss"] == pytest.approx(last["val/loss"], rel=1e-5)
    # 64 more ids, each as likely as the average token: fewer than all of them together, so the loss moves little.
    padded = replace(child, model=replace(RUN.model, vocab_size=192))
    begun.clear()
    fit(padded, lambda m: begun.append(dict(m)))
    assert last["val/loss"] < begun[0]["val/loss"] < last["val/loss"] + math.log(1 + 64 / 128)
    begun.clear()
    fit(replace(child, model=replace(RUN.model, bias=True)), lambda m: begun.append(dict(m)))  # of zeros
    assert begun[0]["val/loss"] == pytest.approx(last["val/loss"], rel=1e-5)
    for change, words in (({"num_layers": 2}, "num_layers 1"), ({"width": 8}, "width")):
        with pytest.raises(DecaylabError, match=words) as caught:
            fit(replace(child, model=replace(RUN.model, **change)), lambda m: None)
        assert "\n" not in str(caught.value)


def test_a_converted_model_completes_text_in_transformers(trained, tmp_path):
    transformers = pytest.importorskip("transformers")
    assert main(["convert", str(trained[2]), "--to", str(tmp_path)]) == 0
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path)
    model, tokenizer = load_finished(trained[2])
    assert theirs.config.eos_token_id == tokenizer.end_of_text < theirs.config.vocab_size
    ids = torch.tensor([[int(i) for part in tokenizer.encode_documents([b"def f"]) for i in part]])
    said = theirs.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert tokenizer.decode(said[0].tolist()) == complete(model, tokenizer, "def f", num_tokens=8, temperature=0)


def test_published_checkpoints_load_and_complete(tmp_path):
    transformers = pytest.importorskip("transformers")
    shape = {"n_positions": 16, "n_embd": 16, "n_layer": 1, "n_head": 2}
    tokenizer = open_tokenizer("ascii")
    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=tokenizer.vocab_size, **shape)).eval()
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(0.1 * torch.randn_like(p))
    theirs.save_pretrained(tmp_path)
    model, codec = load_finished(tmp_path, tokenizer="ascii")
    tokens = torch.randint(100, (1, 10))
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), theirs(tokens).logits, rtol=1e-4, atol=1e-4)
    assert complete(model, codec, "x = ", num_tokens=4, temperature=0).startswith("x = ")
    run = replace(RUN, init_from=InitFrom(run=f"hf:{tmp_path}"), steps=1)
    with pytest.raises(DecaylabError, match=r"set model\.bias to True"):
        fit(run, lambda m: None)
    fit(replace(run, model=replace(RUN.model, bias=True, activation="gelu_tanh")), lambda m: None)


def test_a_spike_is_recorded_with_its_step_and_the_run_goes_on_or_ends():
    # The learning rate is far too high, so the loss rises and stays there.
    wild = replace(RUN, optimizer=Optimizer(name="signsgd", lr=0.3), steps=40, probes=Probes(names=(), every=1))
    records = []
    ended = fit(replace(wild, divergence=Divergence(rise=0.05, patience=5)), lambda m: records.append(dict(m)))
    spikes = [r for r in records if "train/spike" in r]
    assert ended.status == "diverged" and "did not come back" in ended.reason
    assert spikes[0]["train/spike"] > 0.05
    assert f"step {spikes[-1]['step']} " in ended.reason
    assert ended.steps == spikes[-1]["step"] + 5
    kept = fit(replace(wild, divergence=Divergence(rise=0.05, patience=5, stop=False)), lambda m: None)
    assert kept.status == "done" and kept.steps == 40
    assert kept.summary["spike"] == ended.reason
    assert kept.summary["spikes"] >= 1


def test_the_machine_is_measured_once():
    first = peak_flops("cpu", torch.float32, 1)
    assert 1e8 < first < 1e15
    assert peak_flops("cpu", torch.float32, 1) is first


def test_finished_runs_keep_their_weights(trained):
    _, outcome, folder = trained
    assert [path.name for path in folder.iterdir()] == [f"snapshot-{outcome.steps}"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sample", "nothing-there"], "no store"),
        (["sample", "EMPTY"], "no weights"),
        (["sample", "RUN", "--weights", "ema0.7"], "ema0.7"),
        (["sample", "RUN", "--prompt", ""], "no tokens"),
        (["train", "language", "--init-from", "abc"], "RUN@STEP"),
        (["train", "language", "--init-from", "hf:"], "init_from.run"),
        (["train", "language", "--init-from.run", "hf:EMPTY"], "config.json"),
        (["train", "language", "--init-from.run", "aa", "--init-from.step", "3"], "no store"),
    ],
)
def test_mistakes_get_one_line(arguments, words, trained, tmp_path, capsys):
    places = {"EMPTY": str(tmp_path), "RUN": str(trained[2]), "hf:EMPTY": f"hf:{tmp_path}"}
    arguments = [places.get(a, a) for a in arguments] + ["--store", str(tmp_path / "runs.db")]
    if "--init-from.run" in arguments:
        arguments += ["--data.tokenizer", "ascii", "--steps", "1", "--schedule.warmup-steps", "0", "--device", "cpu"]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


def test_the_transformers_folder_is_read_back_alike(trained, tmp_path):
    model, _ = load_finished(trained[2])
    transformers_format.write(model, tmp_path)
    again = transformers_format.load(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
