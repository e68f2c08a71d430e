"""Tables of users: what is read, and that every mistake is named by row and column."""

import math

import numpy as np
import pytest

from experiments.forecast.table import Columns, card, one_row, read

COLUMNS = Columns("t", "y")
NAMED = Columns("t", "y", "who")


@pytest.fixture
def table(tmp_path):
    """Writes a table and returns its path."""

    def write(text):
        path = tmp_path / "table.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_numbers_are_times_and_rows_without_a_value_are_left_out(table):
    found = read(table("y, t \n2,1\n,2\n nan,3\n5,4.5\n"), COLUMNS)
    assert not found.dated
    assert found.missing == 2
    assert found.series[0].times.tolist() == [1.0, 4.5]
    assert found.series[0].values.tolist() == [2.0, 5.0]


def test_dates_are_seconds_whatever_their_zone(table):
    text = "t,y\n2024-01-01,1\n2024-01-01 00:30,2\n2024-01-01T02:00:00+01:00,3\n"
    found = read(table(text), COLUMNS)
    assert found.dated
    assert found.steps().tolist() == [1800.0, 1800.0]
    for text, time in zip(
        ["2024-01-01", "2024-01-01 00:30", "2024-01-01T02:00:00+01:00"],
        found.series[0].times,
        strict=True,
    ):
        assert one_row([text, "1"], COLUMNS, True) == (time, 1.0)


def test_dates_without_hyphens_and_months(table):
    days = read(table("t,y\n20240131,1\n20240201,2\n20240202,3\n"), COLUMNS)
    assert days.dated
    assert days.steps().tolist() == [86400.0, 86400.0]
    numbers = read(table("t,y\n20240131,1\n20240132,2\n"), COLUMNS)
    assert not numbers.dated
    months = read(table("t,y\n2024-01,1\n2024-02,2\n"), COLUMNS)
    assert one_row(["2024-02", "2"], COLUMNS, True)[0] == months.series[0].times[1]


def test_series_are_told_apart_by_their_column(table):
    found = read(table("t,y,who\n1,1,b\n1,2,a\n2,3,b\n3,4,a\n"), NAMED)
    assert [one.name for one in found.series] == ["b", "a"]
    assert [one.times.tolist() for one in found.series] == [[1, 2], [1, 3]]


def test_what_was_found_is_told(table):
    days = [f"2024-01-{day:02},{day}" for day in (1, 2, 3, 4, 8)]
    found = read(table("\n".join(["t,y", *days, "2024-01-09,"])), COLUMNS)
    assert card(found, COLUMNS) == {
        "series": "1, of 5 to 5 values",
        "times": "dates, 2024-01-01 00:00:00 to 2024-01-08 00:00:00",
        "step": "1 days (median), 75.0% of the steps are equal",
        "gaps": "1 steps above 1.5 medians, the longest 4 days",
        "values": "1 to 8, mean 3.6, 1 missing",
    }


@pytest.mark.parametrize(
    ("text", "columns", "words"),
    [
        ("", COLUMNS, ["an empty file"]),
        ("t,y\n", COLUMNS, ["rows below the header", "got none"]),
        ("t,y\n1,2\n", COLUMNS, ["at least two rows", "'y'", "got 1"]),
        ("a,b\n1,2\n", COLUMNS, ["a column 't'", "got 'a', 'b'."]),
        ("t;y\n1;2\n", COLUMNS, ["a column 't'", "--separator ';'"]),
        ("t\ty\n1\t2\n", COLUMNS, ["--separator $'\\t'"]),
        ("t,y\n1,2\n2,high\n", COLUMNS, ["row 2 of column 'y'", "'high'"]),
        ("t,y\n1,2\n2,inf\n", COLUMNS, ["row 2 of column 'y'", "'inf'"]),
        ("t,y\n1,2\nx,3\n3,3\n", COLUMNS, ["row 2 of column 't'", "'x'"]),
        ("t,y\n1,2\n,3\n3,3\n", COLUMNS, ["row 2 of column 't'", "''"]),
        ("t,y\n1/2/24,2\n2/2/24,3\n", COLUMNS, ["ISO 8601", "row 1", "'1/2/24'"]),
        ("t,y\n1,2\n1,3\n", COLUMNS, ["row 1 again in row 2", "--id"]),
        ("t,y\n2,2\n1,3\n", COLUMNS, ["earlier time than in row 1 in row 2", "sort"]),
        (
            "t,y,who\n1,2,a\n1,3,b\n0,1,b\n",
            NAMED,
            ["than in row 2 in row 3 of who 'b'", "column 't'", "'0'"],
        ),
        ("t,y,who\n1,2,a\n2,3,\n", NAMED, ["row 2 of column 'who'"]),
        ("t,y,who\n1,2,a\n2,3,a\n3,1,b\n", NAMED, ["who 'b'", "got 1"]),
        (b"t,y\n1,\xff\n", COLUMNS, ["UTF-8"]),
        ("t,y\n1,2\n2,3,4\n", COLUMNS, ["cannot be read", "line 3"]),
        ("t,y\n1,2,3\n2,3,4\n", COLUMNS, ["cannot be read"]),
    ],
)
def test_a_mistake_is_named(table, text, columns, words):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 the words are below
        read(table(text), columns)
    for word in words:
        assert word in str(caught.value)


def test_a_file_that_is_none_is_named(tmp_path):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(ValueError, match="Expected a table in"):
            read(path, COLUMNS)


@pytest.mark.parametrize(
    ("texts", "dated", "word"),
    [
        (["", "1"], False, "'t'"),
        (["noon", "1"], True, "'t'"),
        (["nan", "1"], False, "'t'"),
        (["1", ""], False, "'y'"),
        (["1", "inf"], False, "'y'"),
    ],
)
def test_a_wrong_row_of_a_stream_is_named(texts, dated, word):
    with pytest.raises(ValueError, match=word):
        one_row(texts, COLUMNS, dated)


def test_other_separators(table):
    found = read(table("t;y\n1;2\n2;3\n"), COLUMNS, ";")
    assert np.array_equal(found.series[0].values, [2, 3])
    assert math.isclose(found.steps()[0], 1)
