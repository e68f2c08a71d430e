"""The experiment on DNA: codes are proper, and no choice uses the test part."""

import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro
from tqdm import tqdm

import jrnn
from experiments import lab
from experiments.data import genome
from experiments.data.genome import Genes
from experiments.dna import __main__ as dna
from experiments.dna import genes, models, references, strands
from experiments.dna.models import Network, Recipe
from experiments.dna.repeats import in_repeats
from experiments.dna.settings import Settings
from experiments.lab import intervals

SMALL = (
    "--bases 120000 --largest-order 3 --smoothings 1 16 --gammas 0.98 1 --hidden 8 "
    "--word 2 --epochs 0.2 --streams 16 --window 64 --evaluations 2 --block 1000 "
    "--gene-windows 48 96 --gene-epochs 0.1 --spacer-epochs 0.5 --shown 3000 "
    "--repeat 12"
)
BASES = np.random.default_rng(0).integers(0, 4, 300).astype(np.int8)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> tuple[Network, object]:
    """A network whose stretches are scored in short pieces."""
    monkeypatch.setattr(models, "PIECE", 16)
    monkeypatch.setattr(models, "WARM_UP", 8)
    network = Network(jrnn.gru(16, 3, input_init=jrnn.initializers.embedding), 2, 1e-2)
    return network, models.init(network, jax.random.key(0))


def test_both_strands_are_read_from_their_own_ends() -> None:
    pair = strands.both_strands(BASES)
    np.testing.assert_array_equal(pair[:, 0], BASES)
    np.testing.assert_array_equal(pair[:, 1], 3 - BASES[::-1])
    placed = strands.in_place(pair)
    np.testing.assert_array_equal(placed[:, 1], 3 - BASES)


def test_a_networks_probabilities_sum_to_one_over_all_strings(tiny) -> None:
    every = np.array(list(itertools.product(range(4), repeat=4)), np.int32).T
    network, params = tiny
    log_p = models.log_probs(network, params, every).astype(np.float64)
    assert np.exp(log_p.sum(axis=0)).sum() == pytest.approx(1, abs=1e-6)


def test_the_mean_over_strands_is_the_length_of_a_code(tiny) -> None:
    """Kraft: over all strings the lengths' powers of two sum to no more than 1."""
    every = list(itertools.product(range(4), repeat=4))
    columns = np.array(every, np.int32).T
    network, params = tiny
    pairs = np.concatenate([columns, 3 - columns[::-1]], 1)
    log_p = models.log_probs(network, params, pairs)
    both = log_p.reshape(4, 2, len(every)).transpose(2, 0, 1)
    bits = [strands.code_lengths(of_string).sum() for of_string in both]
    mixtures = np.exp(both.astype(np.float64).sum(axis=1)).mean(axis=1)
    assert (np.array(bits) >= -np.log2(mixtures) - 1e-6).all()
    assert 0.9 < sum(2.0**-b for b in bits) <= 1 + 1e-6


@pytest.mark.longer
def test_pieces_see_the_past_alone_and_agree_with_the_whole(tiny) -> None:
    network, params = tiny
    whole = models.log_probs(network, params, BASES[:, None])
    for at in (15, 16, 100):
        other = BASES.copy()
        other[at] = 3 - other[at]
        moved = models.log_probs(network, params, other[:, None])
        np.testing.assert_array_equal(moved[:at], whole[:at])
        assert moved[at] != whole[at]
        assert moved[at + 1] != whole[at + 1]
    words = models.words_before(BASES[:, None].astype(np.int32), network.word)
    zeros = np.zeros((8, 1), np.int32)  # the warm-up before the first piece
    _, ys = jrnn.unroll(network.cell, params[0], jnp.asarray(np.r_[zeros, words]))
    head = jrnn.categorical(4)
    exact = head.log_prob(params[1], ys[8:], jnp.asarray(BASES[:, None], jnp.int32))
    np.testing.assert_allclose(whole[:16], exact[:16], atol=1e-6)
    np.testing.assert_allclose(whole, exact, atol=0.02)  # states forget within 8 bases


def test_a_mixture_that_forgets_nothing_is_the_mean_of_probabilities() -> None:
    log_p = np.log(np.random.default_rng(1).uniform(0.1, 0.9, (3, 20, 2)))
    totals = np.log(np.exp(log_p.sum(axis=1)).mean(axis=0))
    mixed = references.mix(log_p, 1.0)
    np.testing.assert_allclose(mixed.sum(axis=0), totals, rtol=1e-6)


def test_a_mixture_that_forgets_is_the_loop_over_its_equation() -> None:
    p = np.random.default_rng(2).uniform(0.1, 0.9, (3, 20, 2))
    mixed, w = references.mix(np.log(p), 0.7), np.full((3, 2), 1 / 3)
    for t in range(20):
        np.testing.assert_allclose(np.exp(mixed[t]), (w * p[:, t]).sum(0), rtol=1e-5)
        w = w**0.7 * p[:, t]
        w /= w.sum(axis=0)


@pytest.mark.longer
def test_smoothing_and_gamma_are_the_best_on_validation() -> None:
    levels = references.fit_chains(BASES, 2)
    valid, called = 3 - BASES, []
    chain = references.choose_smoothing(
        levels, 2, (0.01, 1.0, 1e3), valid, lambda: called.append(1)
    )
    each = {
        w: strands.code_lengths(references.chain_log_probs(levels, 2, w, valid)).mean()
        for w in (0.01, 1.0, 1e3)
    }
    assert chain.valid == pytest.approx(min(each.values()))
    assert each[chain.smoothing] == min(each.values())
    assert len(called) == 3
    # The better model changes half-way: what forgets does better.
    good, bad = np.full((50, 2), -0.1), np.full((50, 2), -2.0)
    swap = np.stack([np.concatenate([good, bad]), np.concatenate([bad, good])])
    assert references.choose_gamma(swap, (1.0, 0.5)).gamma == 0.5


def test_a_chain_counts_both_strands() -> None:
    one = references.fit_chains(BASES, 1)
    other = references.fit_chains(genome.reverse_complement(BASES), 1)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_lzma_that_has_read_the_other_strand_knows_it() -> None:
    text = np.random.default_rng(3).integers(0, 4, 5000).astype(np.int8)
    found = references.lzma_bits(text, genome.reverse_complement(text))
    assert found["primed"] < 0.2
    assert 2 <= found["alone"] < 2.7


def test_an_interval_resamples_blocks() -> None:
    values = np.repeat([0.0, 1.0, 0.0, 1.0], 25)  # each block is all alike
    found = strands.mean_interval(values, strands.blocks(100, 25))
    assert found.value == 0.5
    assert (found.low, found.high) == (0.0, 1.0)
    narrow = strands.mean_interval(values, strands.blocks(100, 1))
    assert 0.35 < narrow.low < 0.45 < 0.55 < narrow.high < 0.65
    with pytest.raises(ValueError, match="at least two blocks"):
        strands.blocks(100, 51)


def test_an_area_is_the_share_of_pairs_in_order() -> None:
    rng = np.random.default_rng(4)
    scores, labels = rng.integers(0, 9, 60) / 3, rng.random(60) < 0.4
    above = scores[labels][:, None] - scores[~labels][None]
    share = (above > 0).mean() + (above == 0).mean() / 2
    of = intervals.curve(scores, labels)
    assert intervals.area(of) == pytest.approx(share)
    weights = rng.integers(0, 3, 60)
    repeated = intervals.curve(np.repeat(scores, weights), np.repeat(labels, weights))
    assert intervals.area(of, weights) == pytest.approx(intervals.area(repeated))
    points = genes.roc(of)
    assert points[-1] == (1.0, 1.0)
    x, y = np.array(points).T  # np.trapezoid is newer than the oldest NumPy
    below = np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2)
    assert below == pytest.approx(share, abs=0.05)
    with pytest.raises(ValueError, match="both kinds"):
        intervals.curve(scores, np.ones(60, bool))


def test_areas_are_compared_on_the_same_blocks() -> None:
    rng = np.random.default_rng(5)
    labels = rng.random(400) < 0.5
    weak = labels + rng.normal(0, 2, 400)
    curves = {name: intervals.curve(weak, labels) for name in ("a", "same")}
    curves["better"] = intervals.curve(labels + rng.normal(0, 0.5, 400), labels)
    found = genes.area_intervals(curves, "a", strands.blocks(400, 20), repeats=100)
    assert found["same"][1] == (0.0, 0.0, 0.0)
    assert found["better"][1].low > 0
    assert found["a"][0].low < intervals.area(curves["a"]) < found["a"][0].high


def test_a_ratio_is_that_of_the_window_around() -> None:
    rng = np.random.default_rng(6)
    ways = genes.Hypotheses(-rng.random((30, 6)), -rng.random((30, 2)))
    found = genes.ratios(ways, 8)
    for t in (0, 3, 15, 29):
        window = slice(max(t - 4, 0), t + 4)
        each = [np.exp(a[window].sum(0)).mean() for a in ways]
        assert found[t] == pytest.approx(math.log(each[0] / each[1]))


def test_segments_read_each_gene_in_its_own_direction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(genes, "SHORTEST", 5)
    monkeypatch.setattr(genes, "LONGEST", 9)
    spans = np.array([[20, 50, 1], [90, 120, -1]])
    covered = [np.zeros(300, bool) for _ in range(2)]
    covered[0][20:50] = covered[1][90:120] = True
    found = genes.segments(BASES, Genes(covered[0], covered[1], spans))
    np.testing.assert_array_equal(found.coding[0], BASES[20:50])
    np.testing.assert_array_equal(found.coding[1], 3 - BASES[90:120][::-1])
    lengths = [len(piece) for piece in found.other]
    assert lengths == [20, 40, 180] * 2
    np.testing.assert_array_equal(found.other[1], BASES[50:90])
    np.testing.assert_array_equal(found.other[4], 3 - BASES[50:90][::-1])
    mixed = genes.shuffled(found.coding, 0)
    assert mixed.shape == (60, 1)
    np.testing.assert_array_equal(
        np.bincount(mixed[:, 0]), np.bincount(np.concatenate(found.coding))
    )


@pytest.mark.longer
def test_a_chain_by_codon_place_knows_strand_and_phase() -> None:
    gene = np.tile([0, 0, 1, 0, 2, 1], 400).astype(np.int8)  # the third base is C
    levels = genes.fit_chain([gene], 0, period=3)
    for phase in range(3):
        ways = genes._read(levels, 0, 3, gene[phase:]).sum(axis=0)
        assert ways.argmax() == 2 * phase
    other = genome.reverse_complement(gene)
    assert genes._read(levels, 0, 3, other).sum(axis=0).argmax() == 1
    near = np.exp(genes._read(levels, 0, 3, gene[:9])[:, 0])
    np.testing.assert_allclose(near[2::3], 1 / 3, atol=0.01)  # of 12 symbols, by place


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_a_network_learns_and_keeps_what_validation_likes() -> None:
    network = Network(jrnn.gru(4, 8, input_init=jrnn.initializers.embedding), 1, 3e-2)
    told = np.tile([0, 1, 3, 2], 400).astype(np.int32)[:, None]
    bits = lambda params: -models.log_probs(network, params, told).mean() / np.log(2)
    steps = []
    recipe = Recipe(streams=8, window=20, evaluations=4, clip=1.0)
    fitted = models.train(network, told, recipe, 4, bits, 0, lambda: steps.append(1))
    assert len(steps) == models.step_count(told, recipe, 4) == 40
    assert fitted.score < 0.3  # of 2 bits
    assert fitted.score == min(found for _, found in fitted.looks)
    assert bits(fitted.params) == pytest.approx(fitted.score)
    # Where validation only gets worse, the first look is kept.
    marks = iter([1.0, 2.0, 3.0, 4.0])
    early = models.train(network, told, recipe, 4, lambda p: next(marks), 0, bool)
    assert (early.step, early.score) == (10, 1.0)
    with pytest.raises(ValueError, match="fewer --streams"):
        models.step_count(told[:50], recipe, 4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden": 0}, "--hidden of 1 or more"),
        ({"seeds": ()}, "at least one of --seeds"),
        ({"gammas": (1.5,)}, "--gammas up to 1"),
        ({"smoothings": (0.0,)}, "--smoothings above 0"),
        ({"networks": ("elman",)}, "--networks of gru, lstm, min_gru, got elman"),
        ({"spacer_epochs": 0.0}, "--spacer-epochs above 0"),
        ({"repeat": 32}, "--repeat of 1 to 31, got 32"),
    ],
)
def test_settings_that_mean_nothing_are_refused(change: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        lab.check(Settings(**change))


def test_mistakes_end_with_status_2(capsys: pytest.CaptureFixture) -> None:
    assert dna.main(["--block", "0"]) == 2
    assert "--block of 1 or more" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_a_small_run_writes_its_files(tmp_path) -> None:
    assert dna.main([*SMALL.split(), "--out", str(tmp_path / "run")]) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text("utf-8"))
    assert (tmp_path / "run" / "dna.png").stat().st_size > 20_000
    rows = results["bits"]["models"]
    assert set(rows) == {
        *(f"markov {m}" for m in (1, 2, 3)),
        "mixture of chains",
        "gru",
        "lstm",
        "min_gru",
        "mixture of all",
    }
    best = f"markov {results['bits']['best_markov']['order']}"
    assert rows[best]["to_best_markov"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert rows[best]["valid"]["mean"] == min(
        rows[f"markov {m}"]["valid"]["mean"] for m in (1, 2, 3)
    )
    zero = {"value": 0.0, "low": 0.0, "high": 0.0}
    assert rows["mixture of chains"]["to_mixture"] == zero
    assert rows["mixture of chains"]["to_mixture_elsewhere"] == zero
    share = results["bits"]["repeats"]["share"]
    assert 0 < share < 0.2
    for row in rows.values():
        assert row["interval"][0] < row["test"]["mean"] < row["interval"][1]
        mean = share * row["in_repeats"] + (1 - share) * row["elsewhere"]
        assert mean == pytest.approx(row["test"]["mean"])
        gap = row["test"]["mean"] - rows["mixture of chains"]["test"]["mean"]
        assert row["to_mixture"]["value"] == pytest.approx(gap)
    assert results["genes"]["models"]["markov by codon place"]["test"]["mean"] > 0.8
    assert 0.8 < results["genes"]["coding_share"] < 0.97


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_poison_in_the_test_part_changes_nothing() -> None:
    settings = tyro.cli(Settings, args=SMALL.split())
    data = genome.load()
    poison = np.random.default_rng(7).integers(0, 4, len(data.bases)).astype(np.int8)
    bases = data.bases.copy()
    bases[data.parts.test] = poison[data.parts.test]
    poisoned = data._replace(bases=bases)
    assert (dna.cut(poisoned, None).test.bases != dna.cut(data, None).test.bases).any()
    cuts = [dna.cut(of, settings.bases) for of in (data, poisoned)]
    found = [dna.fit(of, settings, tqdm(disable=True)) for of in cuts]
    clean, dirty = (
        study._replace(models=study.models._replace(seconds={})) for study in found
    )
    assert jax.tree.structure(clean) == jax.tree.structure(dirty)
    pairs = zip(jax.tree.leaves(clean), jax.tree.leaves(dirty), strict=True)
    for a, b in pairs:
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    scored = [
        dna.bits.score_models(clean.models, of.train.bases, of.test.bases, settings)[
            "models"
        ]["markov 3"]["test"]["mean"]
        for of in cuts
    ]
    assert scored[0] + 0.01 < scored[1]


def test_a_repeat_is_beside_what_the_training_part_holds() -> None:
    rng = np.random.default_rng(8)
    known, new = (rng.integers(0, 4, n).astype(np.int8) for n in (400, 300))
    assert not in_repeats(known, new, 12).any()
    new[50:80] = known[100:130]
    new[200:220] = genome.reverse_complement(known[300:320])
    new[285:] = known[:15]
    new[[49, 80, 199, 220, 284]] = 3 - new[[49, 80, 199, 220, 284]]
    found = in_repeats(known, new, 12)
    letters = genome.decode(known) + b"N" + genome.decode(3 - known[::-1])
    text = genome.decode(new)
    for t in range(300):
        before, after = text[max(t - 12, 0) : t], text[t + 1 : t + 13]
        beside = [s for s in (before, after) if len(s) == 12]
        assert found[t] == any(s in letters for s in beside), t
    assert 50 < found.sum() < 80
    with pytest.raises(ValueError, match="length of 1 to 31, got 32"):
        in_repeats(known, new, 32)


def test_an_interval_may_be_among_some_alone() -> None:
    values = np.array([1.0, 9.0, 3.0, 9.0])
    among = np.array([True, False, True, False])
    found = strands.mean_interval(values, strands.blocks(4, 2), among)
    assert found == (2.0, 1.0, 3.0)
