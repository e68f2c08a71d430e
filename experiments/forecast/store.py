"""A trained forecaster in its folder: the network's file, and how values are scaled."""

from pathlib import Path
from typing import Any, NamedTuple

import jrnn
from experiments import lab
from experiments.forecast.problem import Setup
from experiments.forecast.table import Columns

MODEL_FILE, SETUP_FILE = "model.safetensors", "forecast.json"


class Forecaster(NamedTuple):
    """A network with all that it needs to forecast a table."""

    setup: Setup
    model: jrnn.models.SequenceModel
    params: Any


def save(folder: Path, forecaster: Forecaster) -> None:
    """Writes a forecaster into a folder."""
    setup = forecaster.setup
    content = {**setup._asdict(), "columns": setup.columns._asdict()}
    lab.write_json(folder / SETUP_FILE, content)
    jrnn.save(folder / MODEL_FILE, forecaster.model, forecaster.params)


def load(folder: Path) -> Forecaster:
    """Reads a forecaster.

    Raises:
      ValueError: The folder holds none.
    """
    if not (folder / SETUP_FILE).is_file():
        raise ValueError(
            f"Expected a run of experiments.forecast in {folder}, got no {SETUP_FILE} "
            "there; name the folder that its training printed, such as "
            "runs/forecast/0001."
        )
    held: dict[str, Any] = lab.read_json(folder / SETUP_FILE)
    try:
        columns = Columns(**held.pop("columns"))
        setup = Setup(columns=columns, **held)
        setup = setup._replace(periods=tuple(setup.periods))
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"Expected the setup of a forecast in {folder / SETUP_FILE}, got another "
            f"content: {error}"
        ) from error
    model, params = jrnn.load(folder / MODEL_FILE)
    return Forecaster(setup, model, params)
