"""Forecasts of returns: causal, scored by the field's measures, blind to the test."""

import dataclasses
import importlib
import json
import math
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

import jrnn
from experiments import lab
from experiments.data._parts import cut
from experiments.data._scale import scale_of
from experiments.data.stocks import SYMBOLS, Stocks
from experiments.lab import intervals
from experiments.stocks import __main__ as experiment
from experiments.stocks import forecasts, networks, report, scores
from experiments.stocks.refits import REFITS, Refit, refit_forecast
from jrnn.heads.mixture import Mixture
from jrnn.heads.student_t import StudentT

RESULTS = Path(experiment.__file__).parents[1] / "results" / "stocks.json"
PAGE = Path(experiment.__file__).parents[2] / "docs" / "stocks.md"
GJR = forecasts.Garch(
    *(
        np.array(pair)
        for pair in (
            (0.1, -0.05),  # mu
            (0.05, 0.1),  # omega
            (0.03, 0.1),  # alpha
            (0.1, 0.0),  # gamma
            (0.85, 0.8),  # beta
            (5.0, 9.0),  # nu
            (2.0, 1.0),  # start
        )
    )
)
TINY = experiment.Settings(
    networks=("gru, t", "gru, mixture"),
    seeds=(0, 1),
    hidden=(2, 3),
    rates=(0.01, 0.1),
    updates=3,
    draws=200,
)


def installed(package: str) -> bool:
    name, _, wanted = package.partition("==")
    try:
        return version(name) == wanted
    except PackageNotFoundError:
        return False


needs_arch = pytest.mark.skipif(
    not installed(forecasts.ARCH), reason=f"needs {forecasts.ARCH}"
)


def made_up(days: int = 700, garch: forecasts.Garch = GJR, seed: int = 0) -> np.ndarray:
    """Returns of two stocks that follow a GARCH, and of a third like the first."""
    z = np.random.default_rng(seed).standard_t(garch.nu, (days, 2))
    z *= np.sqrt((garch.nu - 2) / garch.nu)
    returns = np.empty_like(z)
    variance, pushed = garch.start, garch.alpha * garch.start
    for t in range(days):
        variance = garch.omega + pushed + garch.beta * variance
        error = np.sqrt(variance) * z[t]
        pushed = (garch.alpha + garch.gamma * (error < 0)) * error**2
        returns[t] = garch.mu + error
    return np.concatenate([returns, returns[::-1, :1]], axis=1)


def made_up_stocks() -> Stocks:
    returns = made_up()
    dates = np.datetime64("2001-01-01") + np.arange(len(returns))
    parts = cut(len(returns), 22, (70, 15, 15))
    return Stocks(returns, dates, SYMBOLS, parts, {"name": "made up"})


class Silent:
    """Stands for a progress bar."""

    def set_description(self, text: str) -> None: ...

    def update(self) -> None: ...


def test_garch_has_the_standardised_density_and_reads_the_past_alone():
    returns = made_up(60)[:, :2]
    found = forecasts.garch_forecast(GJR, returns)
    # t scaled to variance 1: Bollerslev 1987, equation 1, by log-gammas.
    nu, sigma = GJR.nu, found.sd
    e = (returns - GJR.mu) / sigma
    constant = [math.lgamma((n + 1) / 2) - math.lgamma(n / 2) for n in nu]
    expected = constant - np.log(np.pi * (nu - 2)) / 2 - np.log(sigma)
    expected -= (nu + 1) / 2 * np.log1p(e**2 / (nu - 2))
    np.testing.assert_allclose(found.log_density, expected, rtol=1e-12)
    np.testing.assert_allclose(found.sd**2, forecasts.garch_variance(GJR, returns))

    def squared(x: float) -> float:
        day = np.full((1, 2), x)
        one = forecasts.garch_forecast(GJR, day)
        return (x - GJR.mu[0]) ** 2 * math.exp(one.log_density[0, 0])

    variance = integrate.quad(squared, -np.inf, np.inf, limit=200)[0]
    assert variance == pytest.approx(found.sd[0, 0] ** 2, rel=1e-6)
    below = integrate.quad(lambda r: squared(r) / (r - GJR.mu[0]) ** 2, -60, -1.5)[0]
    one = forecasts.garch_forecast(GJR, np.full((1, 2), -1.5))
    assert one.pit[0, 0] == pytest.approx(below, abs=1e-5)
    changed = returns.copy()
    changed[30] -= 5.0
    later = forecasts.garch_forecast(GJR, changed)
    assert (later.sd[:31] == found.sd[:31]).all()
    assert (later.sd[31:] > found.sd[31:]).all()


def test_a_fall_raises_the_variance_by_gamma_more_than_a_rise():
    rise, fall = (GJR.mu + np.array([[x, x]] * 2) for x in (2.0, -2.0))
    risen, fallen = (forecasts.garch_variance(GJR, r)[1] for r in (rise, fall))
    np.testing.assert_allclose(fallen - risen, GJR.gamma * 4.0, atol=1e-12)


@pytest.mark.slow
def test_autoregressions_are_forecasts_in_percent():
    rng = np.random.default_rng(0)
    returns = np.zeros((400, 2))
    for t in range(1, 400):
        returns[t] = [1.0, -2.0] + 0.5 * returns[t - 1] + rng.normal(0, [1.0, 3.0])
    train = slice(0, 300)
    scale = scale_of(returns[train])
    params = forecasts.fit_autoregression(1, scale, returns[train])
    found = forecasts.autoregression_forecast(1, scale, params, returns)
    for i in (0, 1):
        past, own = returns[:299, i], returns[1:300, i]
        design = np.stack([np.ones(299), past], axis=1)
        beta, *_ = np.linalg.lstsq(design, own, rcond=None)
        sd = (own - design @ beta).std()
        mean = beta[0] + beta[1] * returns[299:-1, i]
        np.testing.assert_allclose(found.mean[300:, i], mean, rtol=1e-5, atol=1e-5)
        expected = stats.norm.logpdf(returns[300:, i], mean, sd)
        np.testing.assert_allclose(found.log_density[300:, i], expected, rtol=1e-4)
        expected = stats.norm.cdf(returns[300:, i], mean, sd)
        np.testing.assert_allclose(found.pit[300:, i], expected, atol=1e-5)


def test_cell_reads_the_return_and_its_size():
    head = networks.reading_sizes(jrnn.heads.student_t())
    xs = jnp.array([[-2.0, 0.0], [0.5, 3.0]])
    got = np.asarray(head.encode(head.symbols(xs)))
    x = np.asarray(xs)
    expected = np.stack([x, np.abs(x), 0.5 * np.log(x**2 + 0.01)], axis=-1)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert head.spec.input_size == got.shape[-1] == 3
    assert networks.entrants() is networks.entrants()


def test_deviation_of_a_mixture_and_of_a_t():
    w, mu, s = np.array([(0.2, 0.5, 0.3), (-1.0, 0.5, 4.0), (0.1, 2.0, 0.7)])
    given = Mixture(*map(jnp.asarray, (np.log(w), mu, s)))
    picked = np.random.default_rng(0).choice(3, 400_000, p=w)
    drawn = np.random.default_rng(1).normal(mu[picked], s[picked])
    assert float(networks.deviation(given)) == pytest.approx(drawn.std(), rel=5e-3)
    known = StudentT(jnp.array(0.3), jnp.array(1.5), jnp.array(4.5))
    expected = stats.t.std(4.5, scale=1.5)
    assert float(networks.deviation(known)) == pytest.approx(expected)


def test_days_are_drawn_in_stretches_and_each_as_often():
    drawn = intervals.draw_places(50, 7, 4_000, seed=3)
    assert drawn.shape == (4_000, 50)
    follows = (np.diff(drawn, axis=1) - 1) % 50 == 0
    ends = np.arange(1, 50) % 7 == 0
    assert follows[:, ~ends].all()
    assert follows[:, ends].mean() < 0.1
    counts = np.bincount(drawn.ravel(), minlength=50) / 4_000
    np.testing.assert_allclose(counts, 1, atol=0.1)


def test_intervals_are_as_wide_as_what_they_are_of():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=1_200)
    slow = np.array([noise[t : t + 20].mean() for t in range(1_000)])
    single, block = (
        np.ptp(
            intervals.middle(
                slow[intervals.draw_places(1_000, b, 1_000, 0)].mean(axis=1)
            )
        )
        for b in (1, 60)
    )
    # A mean of 1,000 moving means of 20 has the deviation of 1 / sqrt(1,000), nearly.
    true = 2 * 1.96 / math.sqrt(1_000)
    assert single < 0.4 * true
    assert 0.75 * true < block < 1.25 * true


def test_binomial_interval_is_clopper_and_pearsons():
    for count, trials in ((0, 30), (5, 100), (81, 263), (30, 30)):
        exact = stats.binomtest(count, trials).proportion_ci(0.95, method="exact")
        got = intervals.clopper_pearson(count, trials)
        assert got == pytest.approx([exact.low, exact.high], abs=1e-12)
    low, high = intervals.clopper_pearson(5.5, 100)
    assert intervals.clopper_pearson(5, 100)[0] < low < 0.055 < high
    assert high < intervals.clopper_pearson(6, 100)[1]


def of_normal(sd: float, returns: np.ndarray, mean: float = 0.0) -> forecasts.Forecast:
    return forecasts.Forecast(
        stats.norm.logpdf(returns, mean, sd),
        stats.norm.cdf(returns, mean, sd),
        np.full_like(returns, mean),
        np.full_like(returns, sd),
    )


def test_true_forecasts_are_calibrated_and_narrow_ones_are_not():
    returns = np.random.default_rng(0).normal(0, 2, (3_000, 3))
    part = slice(1_000, 3_000)
    true, narrow = of_normal(2.0, returns), of_normal(1.5, returns)
    good = scores.calibration([true, true], part)
    bad = scores.calibration([narrow], part)
    assert good["trials"] == 6_000
    assert good["distance_from_uniform"]["mean"] < 0.02
    assert bad["distance_from_uniform"]["mean"] > 0.05
    for level, quantile in (("0.01", -2.326348), ("0.05", -1.644854)):
        assert good["value_at_risk"][level]["covered"]
        risk = bad["value_at_risk"][level]
        assert not risk["covered"]
        assert risk["counts"] == [(returns[part] < 1.5 * quantile).sum()]
    assert sum(good["pit_histogram"]) == 6_000
    drawn = intervals.draw_places(2_000, 5, 300, 0)
    row = scores.likelihood([narrow], {"true": true, "own": narrow}, part, drawn)
    expected = (true.log_density - narrow.log_density)[part].mean()
    assert row["less"]["true"]["mean"] == pytest.approx(expected)
    low, high = row["less"]["true"]["interval"]
    assert 0 < low < expected < high
    assert row["less"]["own"] == {"mean": 0.0, "interval": [0.0, 0.0]}


def test_a_mean_that_is_forecast_is_found_and_one_that_is_not_is_not():
    rng = np.random.default_rng(0)
    signal = rng.normal(0, 1, (2_000, 3))
    returns = signal + rng.normal(0, 3, (2_000, 3))
    scale, part = scale_of(returns[:1_000]), slice(1_000, 2_000)
    drawn = intervals.draw_places(1_000, 5, 300, 0)

    def r2(mean: np.ndarray) -> dict:
        forecast = of_normal(3.0, returns)._replace(mean=mean)
        return scores.mean_forecast([forecast], returns, scale, part, drawn)

    found = r2(signal)
    assert found["r2"] == pytest.approx(0.1, abs=0.03)
    assert found["r2_interval"][0] > 0.05
    blind = r2(rng.permutation(signal))
    assert blind["r2"] < 0
    assert blind["r2_interval"][1] < 0
    assert blind["size_correlation"]["mean"] is None
    prices = scores.r2_of_yesterdays_price(returns, slice(0, 2_000))
    assert min(prices) > 0.95


def test_settings_that_mean_nothing_are_refused():
    for wrong in (
        {"networks": ("gru",)},
        {"networks": ()},
        {"seeds": ()},
        {"updates": 0},
        {"rates": (0.1, -0.1)},
        {"block": 0},
    ):
        with pytest.raises(ValueError, match=f"Expected .*--{next(iter(wrong))}"):
            lab.check(dataclasses.replace(TINY, **wrong))
    lab.check(TINY)
    lab.check(experiment.Settings())


def test_without_arch_the_error_names_the_command(monkeypatch, tmp_path, capsys):
    def missing(name: str):
        raise ModuleNotFoundError(f"No module named {name!r}", name="arch")

    monkeypatch.setattr(importlib, "import_module", missing)
    monkeypatch.setattr(experiment.stocks, "load", made_up_stocks)
    assert experiment.main(["--out", str(tmp_path / "run")]) == 2
    assert "pip install arch==8.0.0" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@needs_arch
@pytest.mark.slow
@pytest.mark.parametrize("asymmetric", [False, True])
def test_garch_is_what_arch_says_it_is(asymmetric):
    returns = made_up(900)[:, :2]
    train = returns[:700]
    garch = forecasts.fit_garch(train, asymmetric)
    assert (garch.gamma != 0).all() == asymmetric
    found = forecasts.garch_forecast(garch, returns)
    arch = forecasts.load_arch()
    for i in (0, 1):
        model = arch.ConstantMean(
            train[:, i],
            volatility=arch.GARCH(1, int(asymmetric), 1),
            distribution=arch.StudentsT(),
            rescale=False,
        )
        result = model.fit(disp="off")
        sd = result.conditional_volatility
        np.testing.assert_allclose(found.sd[:700, i], sd, rtol=1e-10)
        own = found.log_density[:700, i].sum()
        assert own == pytest.approx(result.loglikelihood, rel=1e-10)
        # The later days, by arch itself with these parameters; it starts its recursion
        # from the mean of all that it is shown, which they no longer feel.
        whole = arch.ConstantMean(
            returns[:, i],
            volatility=arch.GARCH(1, int(asymmetric), 1),
            distribution=arch.StudentsT(),
            rescale=False,
        ).fix(result.params)
        sd = whole.conditional_volatility
        np.testing.assert_allclose(found.sd[700:, i], sd[700:], rtol=1e-9)
        density = arch.StudentsT().loglikelihood(
            [garch.nu[i]], returns[:, i] - garch.mu[i], sd**2, individual=True
        )
        np.testing.assert_allclose(
            found.log_density[700:, i], density[700:], rtol=1e-9, atol=1e-9
        )


@needs_arch
@pytest.mark.slow
@pytest.mark.parametrize("refit", [Refit(asymmetric=False), Refit(True, window=150)])
def test_refitted_forecasts_know_no_later_day(refit: Refit) -> None:
    returns = made_up(320)[:, :2]
    found = refit_forecast(refit, returns, 200, 30)
    # Estimated before day 230 from the days before it, and kept for 30 days.
    start = 0 if refit.window is None else 80
    garch = forecasts.fit_garch(returns[start:230], refit.asymmetric)
    expected = forecasts.garch_forecast(garch, returns[start:260])
    for own, other in zip(found, expected, strict=True):
        assert own.shape == returns.shape
        assert (own[230:260] == other[-30:]).all()
    for day in (265, 290):  # within a stretch, and where one begins
        changed = returns.copy()
        changed[day:] = 20.0 * np.random.default_rng(1).normal(size=(320 - day, 2))
        poisoned = refit_forecast(refit, changed, 200, 30)
        for own, other in zip(found, poisoned, strict=True):
            assert own[:day].tobytes() == other[:day].tobytes()
        assert found.sd[day].tobytes() == poisoned.sd[day].tobytes()
        assert (found.sd[day + 1] != poisoned.sd[day + 1]).any()


@needs_arch
@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_test_part_changes_no_bit_of_what_is_learned():
    data = made_up_stocks()
    poisoned = data.returns.copy()
    poisoned[data.parts.valid.stop :] = 1e6
    settings = dataclasses.replace(TINY, networks=("gru, t",))
    learned = [
        experiment.learn(returns, data.parts, settings, Silent())
        for returns in (data.returns, poisoned)
    ]
    bits = [
        [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(one)] for one in learned
    ]
    assert bits[0] == bits[1]
    first = learned[0]
    assert len(bits[0]) > 40
    assert {fit.hidden for fit in first.networks.values()} <= set(TINY.hidden)
    # And what was kept is what is said to have been, and is the best of what was tried.
    for name, fitted in first.networks.items():
        entrant = networks.entrants()[name]
        found = networks.forecasts(entrant, first.scale, fitted, data.returns)
        assert len(found) == len(TINY.seeds)
        for forecast, valid in zip(found, fitted.valid, strict=True):
            shown = -(forecast.log_density[data.parts.valid] + np.log(first.scale.sd))
            assert shown.mean() == pytest.approx(valid, rel=1e-5)
        assert len(fitted.tried) == len(TINY.hidden) * len(TINY.rates)
        assert min(fitted.tried.values()) == pytest.approx(np.mean(fitted.valid))


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_networks_forecast_from_the_past_alone():
    returns = made_up(80)
    scale = scale_of(returns[:50])
    recipe = networks.Recipe((3,), (0.01,), (0,), 1, 1.0)
    changed = returns.copy()
    changed[60:] += 3.0
    for name in ("gru, t", "gru, mixture"):
        entrant = networks.entrants()[name]
        runs, _ = networks.start(entrant.model(3), recipe)
        (fitted,) = networks.by_rate(runs, 3, recipe)
        (one,), (other,) = (
            networks.forecasts(entrant, scale, fitted, r) for r in (returns, changed)
        )
        assert (one.mean[:61] == other.mean[:61]).all()
        assert (one.sd[:61] == other.sd[:61]).all()
        assert (one.sd[61] != other.sd[61]).all()
        assert (one.log_density[:60] == other.log_density[:60]).all()


@needs_arch
@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_a_run_writes_what_it_prints(tmp_path, capsys):
    data = made_up_stocks()
    settings = dataclasses.replace(TINY, out=tmp_path / "run")
    assert experiment.run(settings, data) == 0
    shown = capsys.readouterr().out
    results = json.loads((tmp_path / "run" / "results.json").read_text("utf-8"))
    assert report.tables(results) in shown
    assert report.verdict(results) in shown
    names = (*TINY.networks, *REFITS, forecasts.GARCH, forecasts.STUDENT_T)
    for name in names:
        row = results["models"][name]
        assert f"{row['nats']['mean']:.4f}" in shown, name
    assert len(results["models"]["gru, t"]["nats"]["values"]) == 2
    # The returns are of a GARCH: it must not lose to what knows no volatility.
    nats = {name: row["nats"]["mean"] for name, row in results["models"].items()}
    assert nats[forecasts.GARCH] < nats[forecasts.GAUSSIAN] - 0.02
    assert (tmp_path / "run" / "stocks.png").stat().st_size > 30_000
    with pytest.raises(ValueError, match="already holds a run"):
        experiment.run(settings, data)


def test_the_page_shows_the_committed_run():
    results = json.loads(RESULTS.read_text("utf-8"))
    page = PAGE.read_text("utf-8")
    assert report.tables(results) in page
    assert report.verdict(results) in page
    assert results["environment"]["commit"].count("dirty") == 0
    assert results["settings"]["seeds"] == list(experiment.Settings().seeds)
