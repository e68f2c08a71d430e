"""What a run is made of: settings, presets, and what is left to the preset."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from experiments import lab

RNNS = ("elman", "gru", "lstm")
MARKOV_ORDERS = (1, 2, 3, 4, 5, 6)

Data = Literal["kjv", "python"]
Model = Literal["all", "elman", "gru", "lstm"]
Preset = Literal["default", "long"]
Device = Literal["cpu", "gpu", "tpu"]
DType = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Train language models on one text, and compare them on its held-out part."""

    data: Data = "kjv"
    """The text: English (inside a wheel), or the standard library's sources."""
    text: Path | None = None
    """A UTF-8 file, or a folder of them, instead of --data."""
    fraction: float = 1.0
    """Share of the training text that is used; validation and test stay whole."""
    preset: Preset = "default"
    """default: three networks, minutes. long: one gated network, up to an hour."""
    model: Model | None = None
    """Which network to train; None leaves it to the preset."""
    steps: lab.Count | None = None
    """Training steps for each network; None leaves it to the preset."""
    parameters: lab.Count | None = None
    """How many parameters each network gets; None leaves it to the preset."""
    streams: lab.Count = 32
    """Places of the text that are read side by side: the batch."""
    window: lab.Count = 100
    """Characters between two updates; the state is carried on, the gradient not."""
    learning_rate: lab.Positive | None = None
    """Peak of Adam's cosine, after a warm-up of 5%; None: the network's own."""
    clip: lab.Positive = 1.0
    """Largest global norm of the gradient."""
    evaluations: lab.Count = 20
    """Points on the learning curve; a checkpoint is written at each."""
    sample_length: Annotated[int, lab.at_least(0)] = 300
    """Characters in each sample."""
    seed: int = 0
    """Of initial parameters and samples."""
    dtype: DType = "float32"
    """Of the parameters; states are float32 at least."""
    device: Device | None = None
    """Where to run; None takes JAX's first device."""
    out: Path | None = None
    """The run folder; None takes the next runs/language_model/NUMBER."""
    resume: bool = False
    """Go on with the run in --out, or with the newest, by its own settings alone."""


# What `None` means. 1,600 steps of 32 x 100 characters are 1.4 passes over the default
# text; 12,000 steps are about ten.
PRESETS: dict[Preset, dict[str, Any]] = {
    "default": {"model": "all", "steps": 1600, "parameters": 220_000},
    "long": {
        "model": "gru",
        "steps": 12_000,
        "parameters": 700_000,
        "learning_rate": 0.005,
    },
}


# Chosen on the validation part of the default text at the default number of steps, of
# 0.006 and 0.01 (Elman), 0.01 and 0.015 (GRU), 0.02 and 0.03 (LSTM).
LEARNING_RATES = {"elman": 0.006, "gru": 0.01, "lstm": 0.03}


def learning_rate(name: str, settings: Settings) -> float:
    """Returns the peak learning rate of a network."""
    given = settings.learning_rate
    return LEARNING_RATES[name] if given is None else given


def to_json(settings: Settings) -> dict[str, Any]:
    """Returns the settings as JSON can hold them."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in dataclasses.asdict(settings).items()
    }


def from_json(content: dict[str, Any]) -> Settings:
    """Returns settings that `to_json` wrote.

    Raises:
      ValueError: The file is another program's, or another version's.
    """
    known = {field.name for field in dataclasses.fields(Settings)}
    if set(content) != known:
        raise ValueError(
            f"Expected settings named {sorted(known)}, got {sorted(content)}; this run "
            "was written by another version. Start a new one."
        )
    paths = {k: Path(content[k]) for k in ("text", "out") if content[k] is not None}
    return Settings(**{**content, **paths})


def networks(settings: Settings) -> tuple[str, ...]:
    """Returns the names of the networks that the run trains."""
    return RNNS if settings.model == "all" else (str(settings.model),)


assert set(get_args(Model)) == {"all", *RNNS}
