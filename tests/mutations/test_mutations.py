"""Each mistake must be noticed: a test counts only once it has been seen to fail."""

from pathlib import Path

import pytest

from tests.mutations.mistakes import MISTAKES
from tests.mutations.runner import ROOT, Mutation, make_copy, mistaken, run_tests

# One in so many is tried in the slow suite, the others at night: neighbours resemble
# each other, and whether all of them still fit the source is a quick test.
STRIDE = 3


def tried(number: int) -> pytest.MarkDecorator:
    return pytest.mark.nightly if number % STRIDE else pytest.mark.slow


@pytest.mark.slow
def test_the_copy_without_a_mistake_passes(tmp_path: Path) -> None:
    tests = {test for mistake in MISTAKES for test in mistake.tests}
    make_copy(tmp_path)
    outcome = run_tests(tmp_path, tuple(sorted(tests)))
    assert outcome.passed >= len(tests), outcome.output
    assert not outcome.failed, outcome.output
    assert not outcome.broken, outcome.output


@pytest.mark.parametrize(
    "mistake",
    [
        pytest.param(mistake, id=mistake.name, marks=tried(number))
        for number, mistake in enumerate(MISTAKES)
    ],
)
def test_a_mistake_is_noticed(
    mistake: Mutation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_copy(tmp_path, mistake)
    outcome = run_tests(tmp_path, mistake.tests)
    # Numbers that differ, and not a program that stops: a mistake that crashes needs
    # no test.
    assert not outcome.broken, outcome.output
    assert outcome.failed, f"nobody noticed: {mistake.name}\n{outcome.output}"
    with capsys.disabled():
        print(f"\n  {mistake.name}: noticed by {outcome.failed[0]}")


def test_every_mistake_fits_the_source() -> None:
    for mistake in MISTAKES:
        source = (ROOT / mistake.file).read_text(encoding="utf-8")
        assert mistaken(source, mistake) != source


def test_a_mistake_that_fits_nowhere_is_refused() -> None:
    stale = MISTAKES[0]._replace(old="no such line")
    with pytest.raises(ValueError, match="0 times"):
        mistaken("another line", stale)
