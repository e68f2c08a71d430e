"""python -m experiments.dna --help.

How many bits does a base of a bacterial chromosome cost? Markov chains of order 1 to
12, a mixture of them all, lzma, and recurrent networks, on a tenth of the chromosome
that none of them has seen; all that is chosen is chosen on another tenth. Then a use:
models of genes and of what lies between them tell the two apart.
"""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from tqdm import tqdm

from experiments import lab
from experiments._extras import require
from experiments.data import genome
from experiments.data.genome import Genome
from experiments.dna import bits, finding, networks
from experiments.dna.bits import Models
from experiments.dna.finding import Finders, Labelled
from experiments.dna.report import draw, tables
from experiments.dna.settings import Settings


class Cut(NamedTuple):
    """The three parts, each labelled by a gene finder that learned on the first."""

    train: Labelled
    valid: Labelled
    test: Labelled


class Study(NamedTuple):
    """All that was fitted and chosen."""

    models: Models
    finders: Finders


def cut(data: Genome, bases: int | None) -> Cut:
    """Returns the parts, or the beginning of each, with their labels.

    Raises:
      ValueError: A letter is unknown: no model here has a probability for it.
    """
    counts = (None, None, None) if bases is None else (bases, bases // 8, bases // 8)
    found = [data.bases[part][:n] for part, n in zip(data.parts, counts, strict=True)]
    if any((part == genome.UNKNOWN).any() for part in found):
        raise ValueError("Expected a sequence of A, C, G and T alone, got others.")
    return Cut(
        *(
            Labelled(part, genome.find_genes(part, trained_on=found[0]))
            for part in found
        )
    )


def fit(
    parts: Cut,
    settings: Settings,
    say: Callable[[str], object],
    done: Callable[[], object],
) -> Study:
    """Fits and chooses everything; the test part is not looked at."""
    train, valid, _ = parts
    return Study(
        bits.fit_models(train.bases, valid.bases, settings, say, done),
        finding.fit_finders(train, valid, settings, say, done),
    )


def score(parts: Cut, study: Study, settings: Settings) -> dict[str, Any]:
    """Returns what the test part says of a study."""
    train, _, test = parts
    return {
        "bits": bits.score_models(study.models, train.bases, test.bases, settings),
        "genes": finding.score_finders(study.finders, test, settings),
    }


def run(settings: Settings, data: Genome) -> int:
    """Runs the experiment."""
    run, parts = lab.begin(settings, "dna", data.card), cut(data, settings.bases)
    total = bits.work(settings, len(parts.train.bases))
    total += finding.work(settings, parts.train)
    with tqdm(total=total, unit="step") as bar:
        study = fit(parts, settings, bar.set_description, bar.update)
    found = score(parts, study, settings)
    sizes = networks.networks(settings.hidden, settings.word)
    results = run.results(
        data=data.card,
        scored={name: len(part.bases) for name, part in parts._asdict().items()},
        parameters={name: networks.size_of(sizes[name]) for name in settings.networks},
        seconds=run.seconds(),
        **found,
    )
    return run.finish(results, draw, said=f"\n{tables(results)}\n")


def main(arguments: list[str]) -> int:
    """Reads the command line and runs the experiment; returns the exit status."""

    def start(settings: Settings) -> int:
        require("pyrodigal")  # it finds the genes, and brings the chromosome
        return run(settings, genome.load())

    return lab.command(Settings, arguments, __doc__, start)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
