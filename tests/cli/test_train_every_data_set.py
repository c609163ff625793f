"""Every kind of data set is trained on for two steps through the command line, from its own preparation on."""

import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.data.test_cifar import NAMES, _random, _write
from tests.data.test_parquet_images import _write as write_parquet

from decaylab.cli import main
from decaylab.data import cifar, openwebtext
from decaylab.files import data_home

SHAPE = ["--model.num-layers", "1", "--model.num-heads", "1", "--model.width", "8", "--model.context", "8"]
EVALUATION = ["--evaluation.every", "2", "--evaluation.batches", "1", "--evaluation.batch-size", "2"]
SCHEDULE = ["--steps", "2", "--batch-size", "4", "--schedule.warmup-steps", "1"]


def _command(arguments, capsys, code=0):
    assert main(arguments) == code, capsys.readouterr().err
    return capsys.readouterr()


def _language(tmp_path, capsys, *data):
    place = ["--store", str(tmp_path / "s.db"), "--device", "cpu"]
    command = ["train", "language", *data, *SHAPE, *EVALUATION, *SCHEDULE, *place]
    out = _command(command, capsys).out
    assert "done, 2 steps" in out and "val/loss" in out
    assert _command(command, capsys).out == out  # looked up, not trained again
    return out


def _vision(tmp_path, capsys, dataset):
    place = ["--store", str(tmp_path / "s.db"), "--device", "cpu"]
    model = ["--model.width", "4", "--model.blocks", "1", "--batch-size", "25", "--epochs", "1"]
    command = ["train", "vision", "--data.dataset", dataset, "--data.train-size", "50", *model, *place]
    found = _command(command, capsys)
    assert "done, 2 steps" in found.out and "test/error" in found.out
    return found


@pytest.fixture(autouse=True)
def _here(in_process):
    pass


@pytest.mark.parametrize("tokenizer", ["ascii", "bytes", "bpe:300"])
def test_a_folder_of_texts(tmp_path, capsys, tokenizer):
    (tmp_path / "t").mkdir()
    for number in range(20):
        (tmp_path / "t" / f"{number}.txt").write_text("".join(f"{number} line {i} of a text\n" for i in range(150)))
    _language(tmp_path, capsys, "--data.corpus", f"folder:{tmp_path / 't'}", "--data.tokenizer", tokenizer)


def test_a_folder_with_its_own_split(tmp_path, capsys):
    for side in ("train", "val"):
        (tmp_path / "t" / side).mkdir(parents=True)
        (tmp_path / "t" / side / "a.md").write_text(f"this is {side}\n" * 30)
    _language(tmp_path, capsys, "--data.corpus", f"folder:{tmp_path / 't'}", "--data.tokenizer", "ascii")


def test_the_standard_library(tmp_path, capsys):
    _language(tmp_path, capsys, "--data.corpus", "stdlib", "--data.tokenizer", "ascii")


DOCUMENTS = [f"document {number}: the quick brown fox jumps over the lazy dog. " * 3 for number in range(400)]


@pytest.fixture
def _frequent(monkeypatch):
    """One document in 8 for validation, so that a few hundred are enough."""
    monkeypatch.setattr(openwebtext, "_ONE_IN", 8)
    monkeypatch.setattr(openwebtext, "_DOCUMENTS_PER_PART", 64)


OPENWEBTEXT = ["--data.corpus", "openwebtext", "--data.tokenizer", "ascii"]


def test_openwebtext_in_parquet_files(tmp_path, capsys, monkeypatch, _frequent):
    """The hub's files read by the real `datasets`, stopped in the middle and taken up again."""
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    (tmp_path / "p" / "plain_text").mkdir(parents=True)
    for part in range(4):
        table = pa.table({"text": DOCUMENTS[100 * part : 100 * part + 100]})
        pq.write_table(table, tmp_path / "p" / "plain_text" / f"train-{part:05}-of-00004.parquet", row_group_size=30)
    get = ["data", "get", "openwebtext", "--tokenizer", "ascii", "--source", str(tmp_path / "p")]
    written = openwebtext._Writer._append
    calls = []

    def stops(self, *arguments):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        written(self, *arguments)

    monkeypatch.setattr(openwebtext._Writer, "_append", stops)
    _command(get, capsys, code=130)
    _command(get, capsys)
    folder = openwebtext.prepared_folder("ascii")
    found = {side: (folder / f"{side}.bin").read_bytes() for side in ("train", "val")}
    ids = b"".join(found.values())
    assert len(ids) == 2 * sum(len(document) + 1 for document in DOCUMENTS)
    _language(tmp_path, capsys, *OPENWEBTEXT)
    monkeypatch.setenv("DECAYLAB_HOME", str(tmp_path / "again"))
    openwebtext.get_openwebtext("ascii", rows=[{"text": document} for document in DOCUMENTS])
    assert found == {side: (openwebtext.prepared_folder("ascii") / f"{side}.bin").read_bytes() for side in found}


def test_openwebtext_in_files_prepared_elsewhere(tmp_path, capsys):
    for side in ("train", "val"):
        codes = [code for document in DOCUMENTS[:20] for code in (*document.encode(), 0)]
        np.array(codes, dtype="<u2").tofile(tmp_path / f"{side}.bin")
    _command(["data", "get", "openwebtext", "--tokenizer", "ascii", "--source", str(tmp_path)], capsys)
    _language(tmp_path, capsys, *OPENWEBTEXT)


def test_what_is_no_openwebtext_is_one_line(tmp_path, capsys):
    pytest.importorskip("datasets")
    get = ["data", "get", "openwebtext", "--tokenizer", "ascii", "--source", str(tmp_path)]
    assert "neither train.bin and val.bin nor *.parquet" in _command(get, capsys, code=2).err
    pq.write_table(pa.table({"words": ["a"]}), tmp_path / "a.parquet")
    assert "has the columns words: expected a column text" in _command(get, capsys, code=2).err
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    error = _command(get, capsys, code=2).err
    assert "expected parquet files with a column text" in error and error.count("\n") == 1


def test_digits(tmp_path, capsys):
    _vision(tmp_path, capsys, "digits")


@pytest.mark.parametrize("dataset", NAMES)
def test_cifar_from_its_archive(tmp_path, capsys, monkeypatch, dataset):
    """The official archive in miniature: its own folder, files and records."""
    folder, _, test, *_ = NAMES[dataset]
    _write(tmp_path / folder, dataset, *_random(dataset))
    archive = tmp_path / cifar._ARCHIVES[dataset].file_name
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / folder, arcname=folder)
    monkeypatch.setattr("decaylab.data.cifar.fetch", lambda *arguments, source, progress: source)
    _command(["data", "get", dataset, "--source", str(archive)], capsys)
    assert (data_home() / "vision" / dataset / folder / test).exists()
    first = _vision(tmp_path, capsys, dataset)
    _write(data_home() / "vision" / dataset / folder, dataset, *_random(dataset, seed=1))
    again = _vision(tmp_path, capsys, dataset)
    assert again.out == first.out
    assert f"{dataset} has changed on this machine since this run was trained" in again.err


@pytest.mark.parametrize("dataset", NAMES)
def test_cifar_from_the_hubs_parquet_files(tmp_path, capsys, dataset):
    label = "label" if dataset == "cifar10" else "fine_label"
    for split, number in (("train", 60), ("test", 20)):
        pixels = np.random.default_rng(number).integers(0, 256, (number, 32, 32, 3), dtype=np.uint8)
        folder = data_home() / "vision" / dataset
        folder.mkdir(parents=True, exist_ok=True)
        write_parquet(folder, split, pixels, {label: [i % 10 for i in range(number)]})
    _vision(tmp_path, capsys, dataset)


def test_a_gpt2_of_transformers(tmp_path, capsys):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=128, n_positions=8, n_embd=8, n_layer=1, n_head=1)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "hf")
    same = ["--model.activation", "gelu_tanh", "--model.bias"]
    start = ["--init-from", f"hf:{tmp_path / 'hf'}", "--data.tokenizer", "ascii", *same]
    first = _language(tmp_path, capsys, *start)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "hf")
    assert _language(tmp_path, capsys, *start).split()[1] != first.split()[1]
