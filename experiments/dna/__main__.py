"""python -m experiments.dna --help.

How many bits does a base of a bacterial chromosome cost? Markov chains of order 1 to
12, a mixture of them all, lzma, and recurrent networks, on a tenth of the chromosome
that none of them has seen; all that is chosen is chosen on another tenth. Then a use:
models of genes and of what lies between them tell the two apart.
"""

from typing import Any, NamedTuple

from tqdm import tqdm

from experiments import lab
from experiments._extras import require
from experiments.data import genome
from experiments.data.genome import Genome
from experiments.dna import bits, finding, models
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
    genes = (genome.find_genes(part, trained_on=found[0]) for part in found)
    return Cut(*map(Labelled, found, genes))


def fit(parts: Cut, settings: Settings, bar: tqdm) -> Study:
    """Fits and chooses everything; the test part is not looked at."""
    train, valid, _ = parts
    return Study(
        bits.fit_models(train.bases, valid.bases, settings, bar),
        finding.fit_finders(train, valid, settings, bar),
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
        study = fit(parts, settings, bar)
    sizes = {name: models.size_of(settings.network(name)) for name in settings.networks}
    results = run.results(
        data=data.card,
        scored={name: len(part.bases) for name, part in parts._asdict().items()},
        parameters=sizes,
        **score(parts, study, settings),
        seconds=run.seconds(),
    )
    return run.finish(results, draw, said=f"\n{tables(results)}\n")


def start(settings: Settings) -> int:
    """Loads the chromosome and runs the experiment."""
    require("pyrodigal")  # it finds the genes, and brings the chromosome
    return run(settings, genome.load())


main = lab.main_of(Settings, __doc__, start)


if __name__ == "__main__":
    raise SystemExit(main())
