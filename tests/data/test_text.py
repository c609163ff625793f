"""Text as a stream: tokenizers against definitions, the split, what is on disk, several processes, damage."""

import hashlib
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from decaylab import data
from decaylab.data import catalog
from decaylab.data.corpus import open_corpus
from decaylab.data.tokenizer import Ascii, BytePairs, Bytes, _pieces, open_tokenizer
from decaylab.errors import DecaylabError
from decaylab.files import data_home


def _folder(root: Path) -> str:
    """A small corpus: several folders, one file with two documents, characters outside ASCII."""
    (root / "b").mkdir(parents=True)
    for i in range(12):
        (root / f"text{i:02}.txt").write_text("".join(f"{i} line {j} of a text, naïve as it is\n" for j in range(60)))
    (root / "b" / "two.md").write_text("first\n<|endoftext|>\nsecond <|endoftext|> still second\n")
    (root / "b" / "picture.png").write_bytes(b"\x89PNG\xff")
    (root / ".hidden.txt").write_text("hidden")
    return f"folder:{root}"


def test_the_two_sides_of_a_stream_are_the_whole_corpus(tmp_path):
    corpus = open_corpus(_folder(tmp_path))
    assert corpus.files == ("b/two.md", *(f"text{i:02}.txt" for i in range(12)))
    train, val = list(corpus.documents("train")), list(corpus.documents("val"))
    everything = sorted(b"".join(train + val).splitlines())
    whole = (tmp_path / "b" / "two.md").read_bytes().replace(b"first\n<|endoftext|>\n", b"first\n")
    for name in corpus.files[1:]:
        whole += (tmp_path / name).read_bytes()
    assert everything == sorted(whole.splitlines())
    assert train[:2] == [b"first\n", b"second <|endoftext|> still second\n"]


def test_about_one_part_in_twenty_is_for_validation():
    corpus = open_corpus("stdlib")
    sizes = [sum(map(len, corpus.documents(side))) for side in ("train", "val")]
    assert 0.04 < sizes[1] / sum(sizes) < 0.06


def test_the_standard_library_without_packages_and_tests():
    corpus = open_corpus("stdlib")
    root = Path(sysconfig.get_paths()["stdlib"])
    assert "argparse.py" in corpus.files and "json/decoder.py" in corpus.files
    assert list(corpus.files) == sorted(corpus.files) and len(corpus.files) > 400
    assert all(name.endswith(".py") and (root / name).is_file() for name in corpus.files)
    assert not any(part in {"site-packages", "test", "tests"} for name in corpus.files for part in name.split("/"))


def test_own_split_by_folders(tmp_path):
    for side in ("train", "val", "other"):
        (tmp_path / side).mkdir()
        (tmp_path / side / "a.txt").write_text(f"this is {side}")
    stream = data.text(f"folder:{tmp_path}")
    assert stream.decode(stream.train) == "this is train<|endoftext|>"
    assert stream.decode(stream.val) == "this is val<|endoftext|>"
    (tmp_path / "val" / "a.txt").unlink()
    with pytest.raises(DecaylabError, match="lacks text: expected files in both subfolders"):
        data.text(f"folder:{tmp_path}")


def test_bytes_lose_nothing():
    text = "naïve \x00 – 日本\n"
    (ids,) = Bytes().encode_documents([text.encode()])
    assert ids.tolist() == list(text.encode())
    assert Bytes().decode([*ids.tolist(), 256]) == text + "<|endoftext|>"


def test_ascii_is_one_id_a_character():
    (ids,) = Ascii().encode_documents(["aï日\x00\n~".encode()])
    assert ids.tolist() == [97, 26, 26, 26, 10, 126]
    assert Ascii().decode([*ids.tolist(), 0]) == "a???\n~<|endoftext|>"


@pytest.mark.parametrize("tokenizer", ["bytes", "ascii", "bpe:300"])
def test_what_is_written(tmp_path, tokenizer):
    name = _folder(tmp_path)
    stream = data.text(name, tokenizer)
    assert stream.train.dtype == np.dtype("<u2") and isinstance(stream.train, np.memmap)
    end = stream.manifest["end_of_text"]
    corpus = open_corpus(name)
    for side, ids in (("train", stream.train), ("val", stream.val)):
        documents = list(corpus.documents(side))
        assert (np.asarray(ids) == end).sum() == len(documents)
        wanted = "".join(d.decode() + "<|endoftext|>" for d in documents)
        assert stream.decode(ids) == (wanted.replace("ï", "?") if tokenizer == "ascii" else wanted)
        assert stream.manifest[side]["tokens"] == len(ids)
        assert stream.manifest[side]["sha256"] == hashlib.sha256(ids.tobytes()).hexdigest()
        assert int(ids.max()) < stream.vocab_size
    assert stream.vocab_size == {"bytes": 257, "ascii": 128, "bpe:300": 300}[tokenizer]
    assert stream.manifest["corpus"]["sha256"] == corpus.digest()
    text = "a text, as it is"
    assert stream.decode(stream.encode(text)) == text
    assert stream.folder.parent == data_home() / "text"


def test_written_once_and_again_when_the_text_changes(tmp_path):
    name = _folder(tmp_path)
    first = data.text(name)
    stamp = (first.folder / "train.bin").stat().st_mtime_ns
    assert data.text(name).folder == first.folder
    assert (first.folder / "train.bin").stat().st_mtime_ns == stamp
    (tmp_path / "text03.txt").write_text("changed\n")
    second = data.text(name)
    assert second.folder != first.folder
    assert second.manifest["corpus"]["sha256"] != first.manifest["corpus"]["sha256"]


def test_the_map_may_be_written_but_the_file_stays(tmp_path):
    stream = data.text(_folder(tmp_path))
    before = (stream.folder / "train.bin").read_bytes()
    stream.train[:5] = 0
    stream.train.flush()
    assert (stream.folder / "train.bin").read_bytes() == before


def test_byte_pairs_are_trained_the_same_again(tmp_path):
    documents = list(open_corpus(_folder(tmp_path)).documents("train"))
    first, again = (BytePairs.train(iter(documents), 500) for _ in range(2))
    assert first.to_json() == again.to_json()
    assert len(first.to_json()) > 1000
    (ids,) = first.encode_documents(["of a text, naïve\n".encode()])
    assert len(ids) < 10 and first.decode(ids.tolist()) == "of a text, naïve\n"


def test_long_texts_are_cut_at_line_breaks():
    text = "".join(f"line {i}\n" for i in range(1000))
    pieces = _pieces(text, 100)
    assert "".join(pieces) == text and all(p.endswith("\n") for p in pieces[:-1])
    assert max(map(len, pieces)) < 120
    assert _pieces("") == [""] and _pieces("short", 100) == ["short"]
    assert _pieces("x" * 300, 100) == ["x" * 300, ""]


def _gpt2_source() -> Path:
    folder = os.environ.get("DECAYLAB_TEST_DATA")
    if not folder or not (Path(folder) / "gpt2_bpe" / "vocab.bpe").exists():
        pytest.skip("DECAYLAB_TEST_DATA does not name a folder with gpt2_bpe/")
    return Path(folder) / "gpt2_bpe"


def test_gpt2s_own_files(tmp_path):
    source = _gpt2_source()
    tokenizer = open_tokenizer("gpt2", source)
    (ids,) = tokenizer.encode_documents([b"Hello world"])
    assert ids.tolist() == [15496, 995]
    assert (tokenizer.vocab_size, tokenizer.end_of_text) == (50257, 50256)
    catalog.get("gpt2", source=source)
    data.available("gpt2")
    stream = data.text(_folder(tmp_path), "gpt2")
    assert stream.decode(stream.train).startswith("first\n<|endoftext|>second")
    assert stream.encode("Hello world") == [15496, 995]


def test_gpt2_without_its_files():
    for call in (lambda: data.text("stdlib", "gpt2"), lambda: data.available("gpt2")):
        with pytest.raises(DecaylabError, match=r"get .* with `decaylab data get gpt2`"):
            call()


def test_damaged_gpt2_files(tmp_path):
    (tmp_path / "vocab.bpe").write_text("#version: 0.2\na b\n")
    (tmp_path / "encoder.json").write_text('{"a": 0, "b": 1, "ab": 2}')
    with pytest.raises(DecaylabError, match=r"vocab.bpe is damaged: expected GPT-2's file with sha256 1ce1664773c5"):
        open_tokenizer("gpt2", tmp_path)


def _damage_short(folder):
    with (folder / "train.bin").open("ab") as file:
        file.truncate(100)
    return r"train.bin is damaged: expected [\d,]+ bytes \([\d,]+ tokens\), found 100; remove"


def _damage_missing(folder):
    (folder / "val.bin").unlink()
    return r"val.bin is damaged: expected [\d,]+ bytes .* found 0; remove"


def _damage_manifest(folder):
    (folder / "manifest.json").write_text("{}")
    return r"manifest.json is damaged: expected the facts of a token stream; remove"


def _damage_tokenizer(folder):
    (folder / "tokenizer.json").write_text("{}")
    return r"tokenizer.json is damaged: expected the tokenizer that was trained"


@pytest.mark.parametrize("damage", [_damage_short, _damage_missing, _damage_manifest, _damage_tokenizer])
def test_damage_is_named(tmp_path, damage):
    name = _folder(tmp_path)
    message = damage(data.text(name, "bpe:300").folder)
    with pytest.raises(DecaylabError, match=message):
        data.text(name, "bpe:300")


def test_half_a_folder_is_written_anew(tmp_path):
    name = _folder(tmp_path)
    folder = data.text(name).folder
    (folder / "manifest.json").unlink()
    (folder / "train.bin").write_bytes(b"")
    assert len(data.text(name).train) > 100


@pytest.mark.parametrize(
    ("corpus", "tokenizer", "message"),
    [
        ("stdlb", "bytes", "unknown data set 'stdlb'; did you mean 'stdlib'"),
        ("stdlib", "byte", "unknown tokenizer 'byte'; did you mean 'bytes'"),
        ("stdlib", "bpe:100", "SIZE from 257 to 65536"),
        ("stdlib", "bpe", "SIZE from 257 to 65536"),
        ("folder:/nowhere/at/all", "bytes", "is not a folder"),
        ("openwebtext", "bytes", "get it with `decaylab data get openwebtext --tokenizer bytes`"),
    ],
)
def test_mistakes_are_one_clear_line(corpus, tokenizer, message):
    with pytest.raises(DecaylabError, match=message):
        data.text(corpus, tokenizer)


def test_a_file_that_is_not_text_and_a_corpus_that_is_too_small(tmp_path):
    (tmp_path / "a.txt").write_text("one short text")
    with pytest.raises(DecaylabError, match="too small: no text is left for the val side"):
        data.text(f"folder:{tmp_path}")
    assert not [p for p in (data_home() / "text").iterdir() if p.is_dir()]  # nothing half-written stays
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DecaylabError, match=r"a.txt is not text: expected UTF-8 \(.* at byte 3\)"):
        data.text(f"folder:{tmp_path}")


def test_odd_entries_of_a_folder(tmp_path):
    name = _folder(tmp_path / "t")
    (tmp_path / "t" / os.fsdecode(b"caf\xe9.txt")).write_text("a name that is not UTF-8\n" * 9)
    digest = open_corpus(name).digest()
    assert len(data.text(name).train) > 100
    (tmp_path / "t" / os.fsdecode(b"caf\xe9.txt")).rename(tmp_path / "t" / "cafe.txt")
    assert open_corpus(name).digest() != digest
    os.mkfifo(tmp_path / "t" / "pipe.txt")
    with pytest.raises(DecaylabError, match=r"pipe.txt is not a file with content"):
        data.text(name)
    (tmp_path / "t" / "pipe.txt").unlink()
    (tmp_path / "t" / "gone.txt").symlink_to("nowhere")
    with pytest.raises(DecaylabError, match=r"gone.txt cannot be read: No such file"):
        data.text(name)
    for odd in ("folder:~nobody-of-this-name/x", "folder:a\0b\x1b[31m"):
        with pytest.raises(DecaylabError, match=r"names no folder|is not a folder") as caught:
            data.text(odd)
        assert str(caught.value).isprintable()


def test_text_of_a_known_digest(tmp_path):
    name = _folder(tmp_path)
    digest = open_corpus(name).digest()
    with pytest.raises(DecaylabError, match=r"has changed since this run was made \(sha256 000000000000\.\.\., now"):
        data.text(name, sha256="0" * 64)
    first = data.text(name, sha256=digest)
    (tmp_path / "text03.txt").write_text("changed\n")
    assert data.text(name, sha256=digest).folder == first.folder  # encoded before: it is still there
    with pytest.raises(DecaylabError, match="has changed since this run was made"):
        data.text(name, "ascii", sha256=digest)


def test_several_processes_start_at_once(tmp_path):
    name = _folder(tmp_path)
    code = (
        "import sys; from decaylab import data; lines = [];"
        "stream = data.text(sys.argv[1], 'bpe:300', progress=lines.append);"
        "print(len(lines), stream.manifest['train']['sha256'])"
    )
    command = [sys.executable, "-c", code, name]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = sorted(worker.communicate(timeout=120)[0].split() for worker in workers)
    assert [written for written, _ in answers] == ["0", "1"]
    assert answers[0][1] == answers[1][1]
    assert len([p for p in (data_home() / "text").iterdir() if p.is_dir()]) == 1


def test_without_a_lock_the_rename_decides(tmp_path, monkeypatch):
    from contextlib import nullcontext

    from decaylab.data import text_streams as stream

    name = _folder(tmp_path)
    first = data.text(name)
    manifest = (first.folder / "manifest.json").read_text()
    monkeypatch.setattr(stream, "only_one", lambda folder: nullcontext())
    # Another process finishes while this one writes: its folder appears first, and wins.
    aside = first.folder.rename(first.folder.with_name("aside"))
    data.text(name, progress=lambda line: aside.rename(first.folder))
    assert (first.folder / "manifest.json").read_text() == manifest
    assert [p.name for p in (data_home() / "text").iterdir() if p.is_dir()] == [first.folder.name]


def test_the_manifest_is_json_for_people(tmp_path):
    stream = data.text(_folder(tmp_path), "ascii")
    manifest = json.loads((stream.folder / "manifest.json").read_text())
    assert manifest == stream.manifest
    assert list(manifest) == [
        "format",
        "corpus",
        "tokenizer",
        "tokenizer_sha256",
        "vocab_size",
        "end_of_text",
        "train",
        "val",
    ]
