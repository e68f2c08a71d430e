"""The numbers of experiments in README are those of the committed runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
# Lines may break anywhere.
README = " ".join((ROOT / "README.md").read_text("utf-8").split())


def committed(name: str) -> Any:
    path = ROOT / "experiments" / "results" / f"{name}.json"
    return json.loads(path.read_text("utf-8"))


def spread(found: dict[str, Any], digits: int, scale: float = 1) -> str:
    return f"{scale * found['mean']:.{digits}f} ± {scale * found['sd']:.{digits}f}"


def span(interval: list[float], form: str) -> str:
    return f"({interval[0]:{form}} to {interval[1]:{form}})"


def gap(found: dict[str, Any], digits: int = 4) -> str:
    """A difference and its interval, whichever names a results file gives them."""
    mean = found.get("mean", found.get("value"))
    interval = found.get("interval") or [found["low"], found["high"]]
    return f"{mean:+.{digits}f} {span(interval, f'+.{digits}f')}"


def stocks() -> list[str]:
    models = committed("stocks")["models"]
    nats = {name: row["nats"] for name, row in models.items()}
    less = models["gru, t"]["less"]
    refitted = "GJR-GARCH(1,1), t, refitted"
    assert max(models["gru, t"]["less"][refitted]["interval"]) > 0  # so it is "level"
    return [
        f"AR(1) {nats['AR(1)']['mean']:.3f} |",
        f"GARCH(1,1), t: {nats['GARCH(1,1), t']['mean']:.3f}; "
        f"GJR-GARCH, refitted: {nats[refitted]['mean']:.3f} |",
        f"GRU, Student-t {spread(nats['gru, t'], 3)} |",
        f"days before, {gap(less[refitted])},",
        f"1,000 days, {gap(less[f'{refitted} to 1,000 days'])}.",
        f"likewise, {gap(less['GARCH(1,1), t, refitted'])},",
        f"fitted once, {gap(less['GARCH(1,1), t'])}.",
    ]


def ecg() -> list[str]:
    results = committed("ecg")
    test, best = results["test"], results["best_reference"]
    nats = {name: row["nats"]["mean"] for name, row in test.items()}
    assert best == "Markov chain of differences, order 2"
    gru = test["GRU"]
    area = {name: row["area"] for name, row in results["beats"]["by_model"].items()}
    gru_area = results["beats"]["by_model"]["GRU"]
    made = [row["beats"] for row in results["generated"]["by_seed"]]
    student = "AR, order chosen, Student-t errors"
    order = results["fitted"]["references"][student]["chosen"]["order"]
    return [
        f"chain {nats['Markov chain, order 1']:.3f}, AR(1) {nats['AR(1)']:.3f} |",
        f"order 2 of differences: {nats[best]:.3f}; "
        f"AR({order}), t: {nats[student]:.3f} |",
        f"GRU {spread(gru['nats'], 3)} |",
        f"{gru['fewer']:.3f} nats {span(gru['fewer_interval'], '.3f')} below",
        f"{min(made)} to {max(made)} beats where the record has "
        f"{results['generated']['recorded']['beats']}",
        f"{min(r['least_mv'] for r in results['generated']['by_seed']):.1f} mV",
        f"{gru_area['area']:.2f} {span(gru_area['interval'], '.2f')}",
        f"the Markov chain on the values does so with "
        f"{area['Markov chain, order 1']:.2f}",
    ]


def glucose() -> list[str]:
    results = committed("glucose")
    both = ("30", "60")

    def errors(name: str) -> str:
        means = (results["test"][name][h]["rmse"]["mean"] for h in both)
        return " / ".join(f"{mean:.1f}" for mean in means)

    def lower(name: str, h: str) -> str:
        found = results["lower"][name]["AR(24)"][h]
        return f"{found['lower_by']:.1f} {span(found['interval'], '.1f')}"

    def held(central: str) -> str:
        gru = results["test"]["GRU"]
        shares = [100 * gru[h]["coverage"][central]["mean"] for h in both]
        return f"{shares[0]:.1f}% and {shares[1]:.1f}%"

    def lag(name: str) -> str:
        means = [results["lags"][name][h]["lag"]["mean"] for h in both]
        return f"{means[0]:.0f} and {means[1]:.0f}"

    mard = [results["test"]["GRU"][h]["mard"]["mean"] for h in both]
    gru = [spread(results["test"]["GRU"][h]["rmse"], 1) for h in both]
    return [
        f"AR(1) {errors('AR(1), linear Markov')} | AR(24) {errors('AR(24)')} |",
        f"GRU {gru[0]} / {gru[1]}; without clock {errors('GRU, no clock')} |",
        f"{lower('GRU', '30')} and {lower('GRU', '60')} mg/dL below AR(24)",
        f"{lower('GRU, no clock', '30')} and {lower('GRU, no clock', '60')}",
        f"90% intervals hold {held('90')} of readings, its 50% intervals {held('50')}",
        f"readings {lag('GRU')} minutes before their time (AR(24): {lag('AR(24)')}",
        f"relative difference is {mard[0]:.1f}% and {mard[1]:.1f}%",
    ]


def dna() -> list[str]:
    results = committed("dna")
    bits, areas = results["bits"]["models"], results["genes"]["models"]
    mean = {name: row["test"]["mean"] for name, row in bits.items()}
    area = {name: row["test"]["mean"] for name, row in areas.items()}
    share, lstm = results["bits"]["repeats"]["share"], bits["lstm"]
    mixture = bits["mixture of chains"]
    return [
        f"bits per base | {mean['markov 1']:.3f} | order 12: {mean['markov 12']:.3f}; "
        f"orders mixed {mean['mixture of chains']:.3f} |",
        f"LSTM {spread(lstm['test'], 3)} |",
        f"mixture is {gap(lstm['to_mixture'], 3)} bits",
        f"{100 * share:.1f}% of the test part",
        f"{lstm['in_repeats']:.2f} bits against the mixture's "
        f"{mixture['in_repeats']:.2f}",
        f"{lstm['elsewhere']:.3f} against {mixture['elsewhere']:.3f}, "
        f"{gap(lstm['to_mixture_elsewhere'], 3)}",
        f"mixed are at {mean['mixture of all']:.3f}",
        f"area of {area['markov by codon place']:.3f} by a Markov chain",
        f"{area['lstm']:.3f} by an LSTM, {area['markov']:.3f} by a plain chain",
    ]


def digits() -> list[str]:
    models = committed("digits")["models"]
    curves = models["mnist1d"]
    pixels = committed("digits_pixels")["models"]["pixels"]["as chosen"]["test"]
    return [
        f"GRU, both ways {spread(curves['as chosen']['test'], 1, 100)} |",
        f"plain GRU {spread(curves['plain GRU']['test'], 1, 100)}",
        f"not moved {100 * curves['examples not moved']['test']['mean']:.1f}",
        f"one point per step {100 * curves['one point per step']['test']['mean']:.1f}",
        f"{100 * curves['as chosen']['test']['mean']:.1f}% of MNIST-1D",
        f"{spread(models['rows']['as chosen']['test'], 1, 100)}%",
        f"{100 * pixels['mean']:.1f}%, one seed",
    ]


def gradient_flow() -> list[str]:
    results = committed("gradient_flow")
    after = {name: cell["after training"] for name, cell in results["cells"].items()}
    before = {name: cell["before training"] for name, cell in results["cells"].items()}
    share = {name: spread(row["share"], 0, 100) + "%" for name, row in after.items()}
    elman = sorted(100 * value for value in after["elman"]["share"]["values"])
    for name in ("elman", "irnn", "lru"):
        assert abs(after[name]["error"]["mean"] - results["chance"]) < 0.02
    drawn = {name: 100 * row["share"]["mean"] for name, row in before.items()}
    return [
        f"{share['gru']} for a GRU and {share['lstm']} for an LSTM",
        f"(mean squared error {after['gru']['error']['mean']:.4f} and "
        f"{after['lstm']['error']['mean']:.3f})",
        f"{elman[0]:.1e} to {elman[-1]:.1e}% for an Elman network",
        f"the {results['chance']:.2f} of a constant answer",
        f"as do IRNN ({share['irnn']}) and LRU ({share['lru']})",
        f"GRU's share, {drawn['gru']:.0e}%,".replace("e-0", "e-"),
        f"Elman network's, {drawn['elman']:.0e}%,".replace("e-0", "e-"),
        f"the LSTM's is {drawn['lstm']:.2f}%",
    ]


def long_memory() -> list[str]:
    rows = list(committed("long_memory")["rows"].values())
    assert {row["stopped"] for row in rows} == {"solved", "sequences", "diverged"}

    def of(task: str, length: int, cell: str, name: str) -> list[Any]:
        own = (task, length, cell)
        found = [r for r in rows if (r["task"], r["length"], r["cell"]) == own]
        assert len(found) == 3
        return [row[name] for row in found]

    def took(task: str, length: int, cell: str) -> str:
        found = of(task, length, cell, "sequences_to_success")
        least, most = min(found), max(found)
        return f"{least:,} to {most:,}" if least < most else f"{least:,} each"

    def wrong(task: str, cell: str) -> str:
        found = [100 * share for share in of(task, 784, cell, "wrong")]
        return f"{np.mean(found):.1f} ± {np.std(found, ddof=1):.1f}%"

    def loss(cell: str) -> str:
        return f"{np.mean(of('copy', 1000, cell, 'loss')):.4f} nats"

    for task, length in {(row["task"], row["length"]) for row in rows}:
        for cell in ("elman", "elman_orthogonal"):
            assert "solved" not in of(task, length, cell, "stopped")
    for cell in ("lstm", "gru", "min_gru"):
        assert "solved" not in of("copy", 100, cell, "stopped")
    for task, length in (("copy", 1000), ("pixels", 784), ("permuted_pixels", 784)):
        assert of(task, length, "irnn", "stopped") == ["diverged"] * 3
    adding = {cell: took("adding", 1000, cell) for cell in ("min_gru", "gru", "lstm")}
    permuted = {
        cell: wrong("permuted_pixels", cell)
        for cell in ("exp_rnn", "elman_orthogonal", "elman", "lstm", "gru")
    }
    return [
        f"all {len(rows)} cases",
        f"minGRU ({adding['min_gru']}), GRU ({adding['gru']}) and "
        f"LSTM ({adding['lstm']})",
        f"LRU ({took('copy', 1000, 'lru')}, {loss('lru')})",
        f"expRNN ({took('copy', 1000, 'exp_rnn')}, {loss('exp_rnn')})",
        f"takes a GRU {took('order_6b', 110, 'gru')} sequences",
        f"expRNN ({permuted['exp_rnn']} wrong)",
        f"({permuted['elman_orthogonal']} and {permuted['elman']}; "
        f"LSTM {permuted['lstm']}, GRU {permuted['gru']})",
        f"({wrong('pixels', 'gru')} and {wrong('pixels', 'lstm')})",
    ]


def forecast() -> list[str]:
    test = committed("forecast")["test"]
    crps = {name: row["crps"]["mean"] for name, row in test.items()}
    return [
        f"a CRPS of {crps['GRU']:.1f} mg/dL by the GRU, {crps['AR(12)']:.1f} by "
        f"AR(12), {crps['persistence']:.1f} by persistence",
    ]


def test_the_table_of_forecasts_is_that_of_the_committed_run() -> None:
    results = committed("forecast")
    page = (ROOT / "docs" / "forecast.md").read_text("utf-8")
    for name, row in results["test"].items():
        errors = row["error_by_horizon"]
        inside = [100 * row["inside"][share]["mean"] for share in ("50", "90")]
        low, high = row["crps_interval"]
        said = (
            f"| {name} | {row['crps']['mean']:.2f} | {low:.2f} to {high:.2f} | "
            f"{errors[0]:.2f} | {errors[-1]:.1f} | "
            f"{inside[0]:.0f}% | {inside[1]:.0f}% |"
        )
        assert said in page, said
    for name in ("GRU", "LRU"):
        gained = results["lower"][name]["AR(12)"]
        assert f"{-gained['mean']:.1f} mg/dL" in page
        assert min(gained["interval"]) < 0 < max(gained["interval"])


@pytest.mark.parametrize(
    "row", [forecast, stocks, ecg, glucose, dna, digits, gradient_flow, long_memory]
)
def test_readme_shows_the_committed_run(row: Callable[[], list[str]]) -> None:
    for said in row():
        assert said in README, said
