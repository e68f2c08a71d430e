"""Daily log returns of AAPL, IBM and MSFT, in percent, March 2000 to March 2013.

r_t = 100 log(p_t / p_{t-1}), with p_t the close adjusted for splits and dividends. A
day without trade is no day: nothing is filled in, and a return over a weekend is the
return from Friday to Monday.
"""

import csv
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from experiments.data._parts import Parts, cut, in_words, lengths
from experiments.data._wheel import WheelFile, unzipped

WHEEL = WheelFile(
    "The stock prices",
    "bokeh_sampledata==2026.1",
    "bokeh_sampledata/_data/stocks.csv.gz",
    "5abadf99b2d394f920120a27de6f0df129859d71d4cfb0bf661bcc99446ab1fd",
    "public domain (Quandl WIKI prices), by the wheel's own list of licences",
)
SYMBOLS = ("AAPL", "IBM", "MSFT")
SPLIT_PERCENT = (70, 15, 15)
# A month of trading: the scale of the slowest memory in daily volatility that the
# field's own models use, the monthly term of Corsi 2009,
# https://doi.org/10.1093/jjfinec/nbp001
GAP = 22


class Stocks(NamedTuple):
    """Returns in percent, one row for each day on which all three were traded.

    Attributes:
      returns: Log returns, (T, 3), in the order of `symbols`.
      dates: The day whose close ends each return, (T,), datetime64[D], increasing.
      symbols: Names of the columns.
      parts: Slices of the days.
      card: What a reader must know of the data.
    """

    returns: Float64[np.ndarray, "T 3"]
    dates: np.ndarray
    symbols: tuple[str, ...]
    parts: Parts
    card: dict[str, object]


def load() -> Stocks:
    """Returns the returns, the same on every run.

    Raises:
      ModuleNotFoundError: The package that holds the prices is not installed.
      ValueError: The file is missing, or is not the expected one.
    """
    return parse(unzipped(WHEEL).decode("utf-8"))


def parse(text: str) -> Stocks:
    """Reads a table with the columns Ticker, Date and Adj Close.

    Raises:
      ValueError: Dates that do not increase or differ from stock to stock, or a price
        that is not above 0.
    """
    days: dict[str, list[str]] = {symbol: [] for symbol in SYMBOLS}
    closes: dict[str, list[str]] = {symbol: [] for symbol in SYMBOLS}
    for row in csv.DictReader(text.splitlines()):
        if row["Ticker"] in days:
            days[row["Ticker"]].append(row["Date"])
            closes[row["Ticker"]].append(row["Adj Close"])
    dates = np.array(days[SYMBOLS[0]], "datetime64[D]")
    if any(own != days[SYMBOLS[0]] for own in days.values()):
        raise ValueError(f"Expected the same dates for all of {', '.join(SYMBOLS)}.")
    if not (np.diff(dates) > np.timedelta64(0, "D")).all():
        raise ValueError("Expected dates that increase, got one twice or out of order.")
    prices = np.array([closes[symbol] for symbol in SYMBOLS], np.float64).T
    if not (prices > 0).all():
        raise ValueError("Expected prices above 0.")
    returns = 100 * np.diff(np.log(prices), axis=0)
    parts = cut(len(returns), GAP, SPLIT_PERCENT)
    return Stocks(returns, dates[1:], SYMBOLS, parts, _card(dates[1:], parts))


def _card(dates: np.ndarray, parts: Parts) -> dict[str, object]:
    span = lambda part: f"{dates[part][0]} to {dates[part][-1]}"
    return {
        "name": "stocks",
        **WHEEL.card(),
        "symbols": list(SYMBOLS),
        "units": "percent: 100 log(p_t / p_t-1) of the adjusted close",
        "sampling": "trading days; nothing filled in",
        "longest_step_days": int(np.diff(dates).max().astype(int)),
        "length": len(dates),
        "split": f"by date, {in_words(SPLIT_PERCENT)}, gaps of {GAP} days",
        **lengths(parts),
        "dates": {name: span(part) for name, part in parts._asdict().items()},
    }
