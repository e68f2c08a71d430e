"""The reference compressors: sizes are right, and priming works or reports failure."""

import builtins
import bz2
import random

import pytest

from experiments.lab import compressors

NOISE = random.Random(0)


def noise(length: int) -> str:
    return "".join(NOISE.choice("abcdefgh") for _ in range(length))


def test_alone_is_the_whole_stream_in_bits_per_character() -> None:
    text = noise(5000)
    row = compressors.compress_all("", text)[0]
    assert row.name == "bz2"
    assert row.alone == 8 * len(bz2.compress(text.encode())) / 5000


@pytest.mark.parametrize("name", ["lzma", "ppmd"])
def test_priming_with_the_same_text_makes_it_free(name: str) -> None:
    text = noise(20_000)
    rows = {r.name: r for r in compressors.compress_all(text + noise(100_000), text)}
    assert rows[name].alone > 2.9  # eight letters at random: three bits
    assert rows[name].primed < 0.2


def test_bz2_is_not_primed_beyond_a_block() -> None:
    text = noise(20_000).encode()
    train = text + noise(900_000).encode()
    added = compressors.bz2_size(train + text) - compressors.bz2_size(train)
    assert 8 * added / len(text) > 2.9


def test_characters_are_counted_not_bytes() -> None:
    narrow, wide = (
        noise(5000),
        noise(5000).translate({ord(c): ord(c) + 0x1F00 for c in "abcdefgh"}),
    )
    narrow_row = compressors.compress_all("", narrow)[2]
    wide_row = compressors.compress_all("", wide)[2]
    assert wide_row.alone == pytest.approx(narrow_row.alone, rel=0.1)


def test_every_row_tells_its_setting() -> None:
    rows = compressors.compress_all("ab" * 100, "ab" * 100)
    assert [r.name for r in rows] == ["bz2", "lzma", "ppmd"]
    assert all(r.note for r in rows)


def test_empty_test_text() -> None:
    with pytest.raises(ValueError, match="at least one character, got none"):
        compressors.compress_all("abc", "")


def test_missing_ppmd_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object, **more: object) -> object:
        if name == "pyppmd":
            raise ModuleNotFoundError(name)
        return real(name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match="pip install pyppmd"):
        compressors.ppmd_size(b"abc")
