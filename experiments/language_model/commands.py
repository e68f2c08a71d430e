"""The commands: train and compare; sample from a checkpoint; score a text."""

import contextlib
import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from experiments._report import (
    CONFIG_FILE,
    StopRequest,
    claim_run_folder,
    read_json,
    stop_on_signal,
    write_json,
)
from experiments.data import Corpus, card, decode, encode, load_corpus, read_text
from experiments.language_model import baselines, networks, report
from experiments.language_model.baselines import Row
from experiments.language_model.settings import (
    Settings,
    from_json,
    resolve,
    to_json,
)
from experiments.language_model.settings import networks as chosen

STOPPED = 130  # what a shell reports of a program that Ctrl-C ended


@dataclasses.dataclass(frozen=True)
class Sample:
    """Continue a prompt with a trained network."""

    checkpoint: Path
    """A folder such as runs/language_model/0001/checkpoints/gru."""
    prompt: str = ""
    """What the network reads first."""
    length: int = 400
    """Characters to draw."""
    temperature: float = 1.0
    """0 takes the most probable character; 1 samples from the model."""
    seed: int = 0
    """Of the draw."""


@dataclasses.dataclass(frozen=True)
class Score:
    """Score a text with a trained network, in bits per character."""

    checkpoint: Path
    """A folder such as runs/language_model/0001/checkpoints/gru."""
    text: Path
    """A UTF-8 file."""


def run(settings: Settings) -> int:
    """Trains and compares; returns the exit status."""
    folder = claim_run_folder(settings.out, "language_model", settings.resume)
    if settings.resume:
        stored = read_json(folder / CONFIG_FILE)
        settings = dataclasses.replace(from_json(stored), out=folder, resume=True)
    else:
        settings = resolve(settings)
    with on_device(settings.device), stop_on_signal() as stop:
        corpus = load_corpus(settings.data, settings.text, settings.fraction)
        if not settings.resume:
            write_json(folder / CONFIG_FILE, to_json(settings))
        tqdm.write(f"run folder: {folder}")
        for name, value in card(corpus).items():
            tqdm.write(f"  {name}: {value}")
        rows = _all_rows(corpus, settings, folder, stop)
        if stop.asked:
            tqdm.write(f"Stopped. Go on with: --resume --out {folder}")
            return STOPPED
        report.write(folder, corpus, settings, rows)
    tqdm.write(report.samples(rows, corpus))
    for part in (report.table(rows), report.markov_table(rows)):
        tqdm.write("\n" + part)
    tqdm.write("\n" + "\n".join(report.answers(rows)))
    return 0


def _all_rows(
    corpus: Corpus, settings: Settings, folder: Path, stop: StopRequest
) -> list[Row]:
    """Networks first: they are what a user waits for, and what can be resumed."""
    rows = []
    for name in chosen(settings):
        trained = networks.train_network(name, corpus, settings, folder, stop)
        if not trained.done:
            return rows
        rows.append(_network_row(name, trained, corpus, settings))
    key = jax.random.key(settings.seed)
    before: list[Row] = [baselines.uniform(corpus)]
    before += baselines.markov_rows(corpus, settings.sample_length, key)
    return before + rows + baselines.compressor_rows(corpus)


def _network_row(
    name: str, trained: networks.Trained, corpus: Corpus, settings: Settings
) -> Row:
    alphabet = corpus.alphabet
    valid, test = (
        baselines.with_unknown(
            networks.bits_per_character(
                trained.model, trained.params, encode(alphabet, part)
            ),
            alphabet,
            part,
        )
        for part in (corpus.valid, corpus.test)
    )
    ids = trained.model.sample(
        trained.params, jax.random.key(settings.seed), settings.sample_length
    )
    hidden = trained.model.cell.spec.output_size
    return Row(
        name,
        valid,
        test,
        networks.count_parameters(trained.model),
        trained.seconds,
        {
            "hidden_size": hidden,
            "step": trained.step,
            "sample": np.asarray(ids).tolist(),
        },
    )


def sample(command: Sample) -> int:
    """Prints a prompt and what the network makes of it."""
    model, params, alphabet = networks.load_network(command.checkpoint)
    prompt = encode(alphabet, command.prompt) if command.prompt else None
    ids = model.sample(
        params,
        jax.random.key(command.seed),
        command.length,
        prompt=None if prompt is None else jnp.asarray(prompt),
        temperature=command.temperature,
    )
    tqdm.write(command.prompt + decode(alphabet, np.asarray(ids).tolist()))
    return 0


def score(command: Score) -> int:
    """Prints how many bits per character a text takes under the network."""
    text = read_text(command.text)
    model, params, alphabet = networks.load_network(command.checkpoint)
    bits = networks.bits_per_character(model, params, encode(alphabet, text))
    bits = baselines.with_unknown(bits, alphabet, text)
    tqdm.write(f"{bits:.4f} bits per character, {len(text):,} characters")
    return 0 if math.isfinite(bits) else 1


def on_device(device: str | None) -> contextlib.AbstractContextManager[Any]:
    """Returns a context in which arrays live on a device of that kind.

    Raises:
      ValueError: JAX finds none.
    """
    if device is None:
        return contextlib.nullcontext()
    try:
        return jax.default_device(jax.devices(device)[0])
    except RuntimeError as error:
        raise ValueError(
            f"Expected a device of kind {device!r}, JAX finds only "
            f"{[d.platform for d in jax.devices()]}; install jrnn[cuda12], "
            "jrnn[cuda13] or jrnn[tpu], or leave --device out."
        ) from error
