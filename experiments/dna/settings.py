"""What a run of `experiments.dna` can be told."""

import dataclasses
from pathlib import Path
from typing import Annotated

from experiments import lab
from experiments.dna.models import Network, Recipe, networks
from experiments.dna.repeats import LONGEST
from experiments.lab.settings import Bound

NETWORKS = ("gru", "lstm", "min_gru")
UP_TO_1 = Bound("up to 1", most=1)


@dataclasses.dataclass(frozen=True)
class Settings(Recipe):
    """Bits per base of a bacterial chromosome, and genes found by likelihood."""

    seeds: lab.Seeds = (0,)
    """Of weights; the committed results are of 0 1 2."""
    networks: Annotated[tuple[str, ...], lab.among(NETWORKS)] = NETWORKS
    """Which networks are compared."""
    largest_order: lab.Count = 12
    """Markov chains of order 1 to this."""
    smoothings: lab.Positives = (1.0, 4.0, 16.0, 64.0)
    """How much an order leans on the one below; each order takes its best."""
    gammas: Annotated[tuple[float, ...], lab.SOME, lab.ABOVE_0, UP_TO_1] = (
        0.9,
        0.98,
        0.995,
        1.0,
    )
    """How much a mixture remembers; the best on validation is taken."""
    hidden: lab.Count = 128
    """Hidden units of a layer."""
    word: lab.Count = 3
    """Bases that a network reads at each step."""
    epochs: lab.Positive = 2.0
    """How often a network reads both strands of the training part."""
    block: lab.Count = 5_000
    """Bases of a block of the bootstrap: longer than most genes."""
    repeat: Annotated[int, lab.within(1, LONGEST)] = 24
    """Bases of an exact repeat of the training part; bits are told apart for those."""
    gene_order: Annotated[int, lab.at_least(0)] = 5
    """Order of the Markov chains that tell genes: each reads words of six bases."""
    gene_windows: Annotated[tuple[int, ...], lab.SOME, lab.ABOVE_0] = (48, 96, 192, 384)
    """Bases around a position that are scored; the best on validation is taken."""
    gene_epochs: lab.Positive = 2.0
    """How often the network of coding DNA reads the genes."""
    spacer_epochs: lab.Positive = 6.0
    """How often that of other DNA reads the seventh that lies between them."""
    shown: lab.Count = 12_000
    """Bases of the test part that the figure shows."""
    bases: int | None = None
    """Take so many of the training part, and an eighth of it of the other two; None:
    all."""
    out: Path | None = None
    """The run folder; None takes the next runs/dna/NUMBER."""

    def network(self, name: str) -> Network:
        """Returns a network by its name."""
        return networks(self.hidden, self.word)[name]
