"""What a run of `experiments.dna` can be told."""

import dataclasses
from pathlib import Path

from experiments.dna.networks import Recipe
from experiments.dna.repeats import LONGEST

NETWORKS = ("gru", "lstm", "min_gru")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Bits per base of a bacterial chromosome, and genes found by likelihood."""

    seeds: tuple[int, ...] = (0,)
    """Of weights; the committed results are of 0 1 2."""
    networks: tuple[str, ...] = NETWORKS
    """Which networks are compared."""
    largest_order: int = 12
    """Markov chains of order 1 to this."""
    smoothings: tuple[float, ...] = (1.0, 4.0, 16.0, 64.0)
    """How much an order leans on the one below; each order takes its best."""
    gammas: tuple[float, ...] = (0.9, 0.98, 0.995, 1.0)
    """How much a mixture remembers; the best on validation is taken."""
    hidden: int = 128
    """Hidden units of a layer."""
    word: int = 3
    """Bases that a network reads at each step."""
    epochs: float = 2.0
    """How often a network reads both strands of the training part."""
    streams: int = 64
    """Stretches read side by side."""
    window: int = 128
    """Bases of truncated backpropagation."""
    evaluations: int = 6
    """How often validation is looked at; the parameters that do best are kept."""
    clip: float = 1.0
    """Largest norm of a gradient."""
    block: int = 5_000
    """Bases of a block of the bootstrap: longer than most genes."""
    repeat: int = 24
    """Bases of an exact repeat of the training part; bits are told apart for those."""
    gene_order: int = 5
    """Order of the Markov chains that tell genes: each reads words of six bases."""
    gene_windows: tuple[int, ...] = (48, 96, 192, 384)
    """Bases around a position that are scored; the best on validation is taken."""
    gene_epochs: float = 2.0
    """How often the network of coding DNA reads the genes."""
    spacer_epochs: float = 6.0
    """How often that of other DNA reads the seventh that lies between them."""
    shown: int = 12_000
    """Bases of the test part that the figure shows."""
    bases: int | None = None
    """Take so many of the training part, and an eighth of it of the other two; None:
    all."""
    out: Path | None = None
    """The run folder; None takes the next runs/dna/NUMBER."""

    def recipe(self, epochs: float) -> Recipe:
        """Returns how a network is trained."""
        return Recipe(self.streams, self.window, epochs, self.evaluations, self.clip)


def check(settings: Settings) -> None:
    """Raises ValueError for settings that mean nothing."""
    for name, least in (
        ("largest_order", 1),
        ("hidden", 1),
        ("word", 1),
        ("streams", 2),
        ("window", 1),
        ("evaluations", 1),
        ("block", 1),
        ("gene_order", 0),
        ("shown", 1),
    ):
        if getattr(settings, name) < least:
            raise ValueError(
                f"Expected --{name.replace('_', '-')} of {least} or more, got "
                f"{getattr(settings, name)}."
            )
    for name in ("seeds", "networks", "smoothings", "gammas", "gene_windows"):
        if not getattr(settings, name):
            raise ValueError(f"Expected at least one of --{name.replace('_', '-')}.")
    for name in ("smoothings", "gammas", "gene_windows"):
        if min(getattr(settings, name)) <= 0:
            raise ValueError(f"Expected --{name.replace('_', '-')} above 0.")
    if not 1 <= settings.repeat <= LONGEST:
        raise ValueError(f"Expected --repeat of 1 to {LONGEST}, got {settings.repeat}.")
    if max(settings.gammas) > 1:
        raise ValueError(f"Expected --gammas up to 1, got {settings.gammas}.")
    for name in ("epochs", "gene_epochs", "spacer_epochs", "clip"):
        if getattr(settings, name) <= 0:
            raise ValueError(f"Expected --{name.replace('_', '-')} above 0.")
    if unknown := set(settings.networks) - set(NETWORKS):
        raise ValueError(f"Expected networks of {NETWORKS}, got {sorted(unknown)}.")
