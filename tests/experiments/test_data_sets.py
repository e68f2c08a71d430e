"""The data sets: parsed exactly, split with gaps, scaled by the training part."""

import gzip
import subprocess
import sys

import numpy as np
import pytest

from experiments.data import ecg, genome, glucose, mnist1d, stocks
from experiments.data._parts import cut, lengths
from experiments.data._scale import normalise, restore, scale_of
from experiments.data._wheel import read_wheel
from experiments.dna import __main__ as dna


@pytest.mark.parametrize("circular", [False, True])
def test_parts_are_disjoint_with_a_gap_and_cover_the_rest(circular):
    parts = cut(1003, 17, (70, 20, 10), circular)
    held = [set(range(1003)[part]) for part in parts]
    assert not held[0] & held[1] | held[1] & held[2] | held[0] & held[2]
    for before, after in zip(held, held[1:], strict=False):
        assert min(after) - max(before) == 17 + 1
    assert min(held[0]) == 0
    assert max(held[2]) == 1002 - (17 if circular else 0)
    usable = 1003 - (3 if circular else 2) * 17
    assert sum(map(len, held)) == usable == sum(lengths(parts).values())
    assert len(held[0]) == usable * 7 // 10


def test_parts_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"sum to 100, got \(80, 10, 5\)"):
        cut(100, 0, (80, 10, 5))
    with pytest.raises(ValueError, match="entries for every part, got 40 in all"):
        cut(40, 19, (80, 10, 10))


def test_scaling_is_undone_and_knows_what_it_was_given_alone():
    xs = np.random.default_rng(0).normal(3, 2, (400, 3))
    parts = cut(400, 10, (70, 15, 15))
    scale = scale_of(xs[parts.train])
    ys = normalise(scale, xs)
    np.testing.assert_allclose(ys[parts.train].mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(ys[parts.train].std(0), 1, rtol=1e-12)
    np.testing.assert_allclose(restore(scale, ys), xs, rtol=1e-12)
    # In another order of memory NumPy sums in another order, but here it does not.
    assert bits(*scale_of(np.asfortranarray(xs))) == bits(*scale_of(xs))
    for bad in (np.ones(5), np.array([1.0, np.nan]), np.array([1.0])):
        with pytest.raises(ValueError, match="Expected"):
            scale_of(bad)


def bits(*arrays: np.ndarray) -> list[bytes]:
    return [np.ascontiguousarray(a).tobytes() for a in arrays]


def table(days: list[str], closes: dict[str, list[float]]) -> str:
    rows = [
        f"{symbol},{day},1,1,1,999,5,{close}"
        for symbol, own in closes.items()
        for day, close in zip(days, own, strict=True)
    ]
    return "\n".join(["Ticker,Date,Open,High,Low,Close,Volume,Adj Close", *rows])


def made_up_stocks() -> tuple[list[str], dict[str, list[float]]]:
    rng = np.random.default_rng(0)
    first = np.datetime64("2001-01-01")
    # Weekends are left out.
    days = [str(first + np.timedelta64(i + 2 * (i // 5), "D")) for i in range(200)]
    closes = {
        symbol: np.exp(rng.normal(0, 0.01, 200).cumsum()).tolist()
        for symbol in ("AAPL", "FB", "IBM", "MSFT")
    }
    return days, closes


def test_returns_are_percent_of_the_adjusted_close():
    days, closes = made_up_stocks()
    data = stocks.parse(table(days, closes))
    prices = np.array([closes[symbol] for symbol in data.symbols]).T
    expected = 100 * np.log(prices[1:] / prices[:-1])
    np.testing.assert_allclose(data.returns, expected, rtol=1e-9, atol=1e-12)
    assert [str(day) for day in data.dates] == days[1:]
    assert data.card["longest_step_days"] == 3
    train = data.dates[data.parts.train]
    assert data.card["dates"]["train"] == f"{train[0]} to {train[-1]}"


def test_prices_that_cannot_be_are_refused():
    days, closes = made_up_stocks()
    twice = [days[0], days[0], *days[2:]]
    with pytest.raises(ValueError, match="dates that increase, got one twice"):
        stocks.parse(table(twice, closes))
    others = table(days, closes) + "\nMSFT,2030-01-01,1,1,1,999,5,1.0"
    with pytest.raises(ValueError, match="same dates for all of AAPL, IBM, MSFT"):
        stocks.parse(others)
    closes["IBM"][7] = 0.0
    with pytest.raises(ValueError, match="prices above 0"):
        stocks.parse(table(days, closes))


def test_the_recorded_integers_are_found():
    rng = np.random.default_rng(0)
    units = rng.integers(-700, 700, 20_000)
    data = ecg.parse(units / 200)
    assert data.units.tolist() == units.tolist()
    assert ecg.quantisation_step(units / 200) == 0.005
    assert ecg.quantisation_step(2 * units / 200) == 0.01
    assert data.card["least"] == units.min()


def test_values_off_the_grid_are_refused():
    units = np.random.default_rng(0).integers(-700, 700, 20_000)
    off = units / 200
    off[77] += 0.001
    with pytest.raises(ValueError, match=r"grid of 0.005 mV, got one of 0.001 mV"):
        ecg.parse(off)
    with pytest.raises(ValueError, match=r"grid of 0.005 mV, got one of 0.01 mV"):
        ecg.parse(units / 100)
    with pytest.raises(ValueError, match=r"one of 0.005 mV and values 4e-05 steps off"):
        ecg.parse(units / 200 + 2e-7 * (np.arange(20_000) == 5))
    units[0] = 1500
    with pytest.raises(ValueError, match="11 bits, got a range of 2200"):
        ecg.parse(np.append(units, -700) / 200)


def readings(minutes: list[int], values: list[int] | None = None) -> str:
    first = np.datetime64("2010-03-24T00:00:00")
    stamps = [str(first + np.timedelta64(m, "m")).replace("T", " ") for m in minutes]
    values = [100 + i % 50 for i in range(len(minutes))] if values is None else values
    rows = [f"1.5,{t},{v}" for t, v in zip(stamps, values, strict=True)]
    return "\n".join(["isig,datetime,glucose", *rows])


def made_up_minutes() -> list[int]:
    """20 segments of 2 to 40 readings, 15 minutes to 10 hours between them."""
    rng, found, last = np.random.default_rng(1), [], 0
    for _ in range(20):
        count = int(rng.integers(2, 41))
        found += [last + 5 * i for i in range(count)]
        last = found[-1] + int(rng.integers(15, 600))
    return found


def test_segments_are_cut_at_gaps_and_nothing_is_filled_in():
    minutes = made_up_minutes()
    text = readings(minutes)
    data = glucose.parse(text)
    assert data.card["segments"] == 20
    every = [s for part in data[:3] for s in part]
    for segment in every:
        assert np.diff(segment.minutes).max(initial=0) <= 10
        assert segment.minutes[0] == 0
    first = np.datetime64("2010-03-24T00:00", "m")
    value = dict(zip(minutes, [100 + i % 50 for i in range(len(minutes))], strict=True))
    for segment in every:
        at = (segment.times - first).astype(int)
        assert [value[m] for m in at.tolist()] == segment.glucose.tolist()


@pytest.mark.parametrize(("step", "segments"), [(10, 1), (11, 2)])
def test_a_step_above_10_minutes_parts_two_segments(step, segments):
    minutes = np.array([0, 5, 10, 10 + step, 15 + step])
    times = np.datetime64("2010-03-24T00:00", "m") + minutes
    found = glucose.at_gaps(glucose.Segment(times, np.arange(5.0)))
    assert len(found) == segments
    assert np.concatenate([s.glucose for s in found]).tolist() == [0, 1, 2, 3, 4]


def test_parts_of_glucose_stand_three_hours_apart():
    minutes = np.concatenate([np.arange(0, 600, 5) + 620 * i for i in range(20)])
    data = glucose.parse(readings(minutes.tolist()))
    spans = [(part[0].times[0], part[-1].times[-1]) for part in data[:3]]
    for (_, last), (first, _) in zip(spans, spans[1:], strict=False):
        assert first - last >= np.timedelta64(180, "m")
    shares = [sum(len(s.times) for s in part) for part in data[:3]]
    assert [data.card[name] for name in ("train", "valid", "test")] == shares
    assert shares[0] > 2 * max(shares[1:])


def test_a_second_stream_and_repeated_times_are_left_out():
    # 10, 15, 20, then another stream a minute early for three readings, then a 4.
    minutes = [0, 5, 5, 10, 14, 15, 19, 20, 24, 25, 30, 34, 39, 49]
    kept = glucose.first_stream(np.array(minutes))
    assert np.array(minutes)[kept].tolist() == [0, 5, 10, 15, 20, 25, 30, 34, 39, 49]
    assert kept[1:3].tolist() == [True, False]  # of two alike the first
    assert glucose.first_stream(np.array([0, 5, 5, 12])).tolist() == [1, 1, 0, 1]


def test_readings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="from 40 to 400 mg/dL"):
        glucose.parse(readings([0, 5], [100, 401]))
    with pytest.raises(ValueError, match="times in order"):
        glucose.parse(readings([0, 10, 5]))
    for minutes in ([0, 5, 10], [0, 5, 25, 30, 50, 55]):  # none left in a part
        with pytest.raises(ValueError, match="three parts, 180 minutes apart, got"):
            glucose.parse(readings(minutes))


def fasta(bases: np.ndarray, title: str = "x y") -> bytes:
    letters = genome.decode(bases).decode()
    lines = [letters[i : i + 70] for i in range(0, len(letters), 70)]
    return "\n".join([f">{title}", *lines, ""]).encode()


def test_bases_are_read_and_the_other_strand_is_theirs():
    rng = np.random.default_rng(0)
    bases = rng.integers(0, 5, 60_000).astype(np.int8)
    data = genome.parse(fasta(bases))
    assert data.bases.dtype == np.int8
    assert data.bases.tolist() == bases.tolist()
    assert data.card["bases"]["unknown"] == (bases == 4).sum() > 0
    assert data.card["sequence"] == "x y"
    other = genome.reverse_complement(bases)
    pairs = {"A": "T", "C": "G", "G": "C", "T": "A", "N": "N"}
    known = genome.decode(bases).decode()
    assert genome.decode(other).decode() == "".join(pairs[b] for b in reversed(known))
    assert genome.reverse_complement(other).tolist() == bases.tolist()
    both = np.stack([bases, other])
    assert genome.reverse_complement(both)[0].tolist() == other.tolist()
    last = data.parts.test.stop
    assert len(bases) - last == genome.GAP  # the circle closes


def test_what_is_not_one_sequence_is_refused():
    for bad in (b"ACGT", b">one\nACGT\n>two\nACGT\n"):
        with pytest.raises(ValueError, match="one sequence in FASTA"):
            genome.parse(bad)
    with pytest.raises(ValueError, match="20000 bases or more to train on, got 100"):
        genome.find_genes(np.zeros(100, np.int8))


def test_a_missing_gene_finder_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyrodigal", None)
    with pytest.raises(ModuleNotFoundError, match="Run: pip install pyrodigal==3.7.1"):
        genome.find_genes(np.zeros(30_000, np.int8))


def test_parts_of_mnist1d_are_the_recipes():
    xs = np.arange(5000 * 40.0).reshape(5000, 40)
    data = mnist1d.with_parts(xs, np.arange(5000, dtype=np.int32) % 10)
    every = np.concatenate(list(data.parts.values()))
    assert sorted(every.tolist()) == list(range(5000))
    assert data.parts["test"].tolist() == list(range(4000, 5000))
    with pytest.raises(ValueError, match="Expected 5000 examples, got 40"):
        mnist1d.with_parts(xs[:40], np.zeros(40, np.int32))


# On the real files.


@pytest.mark.slow
def test_the_real_stocks():
    data = stocks.load()
    assert data.returns.shape == (3269, 3)
    assert str(data.dates[0]) == "2000-03-02"
    assert str(data.dates[-1]) == "2013-03-01"
    assert [data.card[part] for part in data.parts._fields] == [2257, 483, 485]
    worst = data.returns[:, 0].argmin()  # Apple's warning of 29 September 2000
    assert str(data.dates[worst]) == "2000-09-29"
    assert data.returns[worst, 0] == pytest.approx(-73.125, abs=1e-3)
    # Apple's close halves at the split of 28 February 2005, the adjusted one does not.
    day = np.searchsorted(data.dates, np.datetime64("2005-02-28"))
    assert abs(data.returns[day, 0]) < 10
    # Poison behind the training part, by the lines of the file.
    text = gzip.decompress(read_wheel(stocks.WHEEL)).decode("utf-8")
    header, *rows = text.splitlines()
    day, last = header.split(",").index("Date"), str(data.dates[data.parts.train][-1])
    bad = [
        row if row.split(",")[day] <= last else row.rsplit(",", 1)[0] + f",{1 + i % 9}"
        for i, row in enumerate(rows)
    ]
    assert header.endswith("Adj Close")
    held = stocks.parse("\n".join([header, *bad]))
    assert held.parts == data.parts
    assert (held.returns[data.parts.test] != data.returns[data.parts.test]).mean() > 0.9
    train = data.parts.train
    assert bits(held.returns[train]) == bits(data.returns[train])
    assert held.card == data.card  # it tells nothing of values


@pytest.mark.slow
def test_the_real_electrocardiogram():
    data = ecg.load()
    assert len(data.mv) == 300 * ecg.HERTZ
    assert ecg.quantisation_step(data.mv) == 1 / ecg.UNITS_PER_MV
    np.testing.assert_allclose(data.units / 200, data.mv, rtol=0, atol=1e-12)
    assert (data.card["least"], data.card["greatest"]) == (-697, 730)
    mv, train = data.mv.copy(), data.parts.train
    mv[train.stop :] = 3.0 * np.sign(np.sin(np.arange(len(mv) - train.stop))) + 0.5
    held = ecg.parse(mv)
    assert held.parts == data.parts
    assert (held.units[data.parts.test] != data.units[data.parts.test]).mean() > 0.9
    for one, other in ((held.units, data.units), (held.mv, data.mv)):
        assert bits(one[train]) == bits(other[train])


@pytest.mark.slow
def test_the_real_glucose():
    data = glucose.load()
    assert data.card["segments"] == 181 + 1
    assert (data.card["read"], data.card["length"]) == (52_281, 52_084)
    assert data.card["second_stream"] == 194
    steps = np.concatenate([np.diff(s.minutes) for p in data[:3] for s in p])
    assert set(steps.tolist()) <= {3, 4, 5, 6, 10}
    assert (steps == 5).mean() > 0.999
    # Poison behind the training part, by the lines of the file.
    text = gzip.decompress(read_wheel(glucose.WHEEL)).decode("utf-8")
    last = str(data.train[-1].times[-1])[:16].replace("T", " ")
    bad = [
        row if row.split(",")[1][:16] <= last else row.rsplit(",", 1)[0] + ",400"
        for row in text.splitlines()[1:]
    ]
    held = glucose.parse("\n".join(["isig,datetime,glucose", *bad]))
    join = lambda part: np.concatenate([s.glucose for s in part])
    assert join(held.test).min() == 400
    assert bits(*scale_of(join(held.train))) == bits(*scale_of(join(data.train)))


@pytest.mark.slow
def test_the_real_chromosome():
    data = genome.load()
    assert len(data.bases) == 2_463_666
    assert data.card["bases"]["unknown"] == 0
    text = gzip.decompress(read_wheel(genome.WHEEL))
    letters = text.split(b"\n", 1)[1].translate(None, b"\r\n").upper()
    assert genome.decode(data.bases) == letters
    counts = {letter: letters.count(letter.encode()) for letter in "ACGT"}
    assert data.card["bases"] == {**counts, "unknown": 0}


@pytest.mark.slow
def test_the_real_genes_are_open_reading_frames():
    data = genome.load()
    genes = genome.find_genes(data.bases)
    assert 0.8 < genes.coding.mean() < 0.95
    stops, starts, whole = {b"TAA", b"TAG", b"TGA"}, {b"ATG", b"GTG", b"TTG"}, 0
    for first, end, strand in genes.spans:
        gene = data.bases[first:end]
        covered = genes.forward if strand == 1 else genes.reverse
        assert covered[first:end].all()
        letters = genome.decode(genome.reverse_complement(gene) if strand < 0 else gene)
        codons = [letters[i : i + 3] for i in range(0, len(letters), 3)]
        whole += codons[-1] in stops and codons[0] in starts
        assert not stops & set(codons[:-1])
    for covered, strand in ((genes.forward, 1), (genes.reverse, -1)):
        own = genes.spans[genes.spans[:, 2] == strand]
        assert 0 < covered.sum() <= (own[:, 1] - own[:, 0]).sum()
    assert whole >= len(genes.spans) - 2  # one may run off each end of the file
    assert max(end - first for first, end, _ in genes.spans) < genome.GAP


@pytest.mark.slow
def test_genes_of_one_part_know_no_other():
    data = genome.parse(fasta(genome.load().bases[:160_000]))
    clean = dna.cut(data, None)
    assert len(clean.train.genes.spans) > 60
    assert len(clean.test.genes.spans) > 5
    rng = np.random.default_rng(0)
    for name in ("valid", "test"):
        bases, part = data.bases.copy(), getattr(data.parts, name)
        bases[part] = rng.integers(0, 4, part.stop - part.start)
        held = dna.cut(data._replace(bases=bases), None)
        for other in clean._fields:
            own, found = (bits(*getattr(of, other).genes) for of in (clean, held))
            assert (own == found) == (other != name), (name, other)


@pytest.mark.slow
def test_the_real_mnist1d():
    # In a process of its own: the package imports matplotlib's pyplot.
    code = (
        "import numpy as np; from experiments.data import mnist1d; d = mnist1d.load();"
        "counts = np.bincount(d.labels[4000:]).tolist();"
        "print(d.xs.shape, counts, len(d.parts['train']))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False
    )
    assert run.returncode == 0, run.stderr
    counts = "[102, 104, 89, 106, 106, 98, 99, 96, 98, 102]"
    assert run.stdout.strip() == f"(5000, 40) {counts} 3500"
