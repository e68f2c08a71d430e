"""The commands: train and compare; sample from a checkpoint; score a text."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from experiments import lab
from experiments._extras import require
from experiments.data import Corpus, card, decode, encode, load_corpus, read_text
from experiments.data.text import KJV
from experiments.lab import stopping
from experiments.lab.run import CONFIG_FILE, new_run_folder
from experiments.language_model import baselines, networks, report
from experiments.language_model.baselines import Row
from experiments.language_model.models import count_parameters
from experiments.language_model.resume import Clock, check_text, write_config
from experiments.language_model.settings import PRESETS, Settings
from experiments.language_model.settings import networks as chosen
from jrnn.train import has_checkpoint

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
    """Trains and compares; returns the exit status.

    Args:
      settings: As given on the command line; to resume, as the run has stored them.

    Raises:
      ModuleNotFoundError: A package is not installed.
      ValueError: A setting, the device, the text or the folder is not good.
      FloatingPointError: Training stopped being finite.
    """
    began = time.perf_counter()
    settings = settings if settings.resume else lab.resolve(settings, PRESETS)
    own = settings.text is None and settings.data == "kjv"
    require("pyppmd", *((KJV,) if own else ()))  # the last rows want it
    folder = None
    with on_device(settings.device):
        corpus = load_corpus(settings.data, settings.text, settings.fraction)
        networks.check_fits(corpus, settings)
        try:
            with _run_folder(corpus, settings) as folder:
                return _compare(corpus, settings, folder, Clock(folder, began))
        except KeyboardInterrupt:  # the second Ctrl-C
            return _stopped(folder)


@contextlib.contextmanager
def _run_folder(corpus: Corpus, settings: Settings) -> Iterator[Path]:
    """The folder of a checked run; a new one stays only once it has a checkpoint."""
    if settings.resume and settings.out is not None:
        check_text(settings.out, corpus)
        yield settings.out
        return
    worth_keeping = lambda folder: any(
        has_checkpoint(networks.checkpoint_path(folder, name))
        for name in chosen(settings)
    )
    with new_run_folder(settings.out, "language_model", worth_keeping) as folder:
        write_config(folder, corpus, settings)
        yield folder


def _compare(corpus: Corpus, settings: Settings, folder: Path, clock: Clock) -> int:
    tqdm.write(f"run folder: {folder}")
    for name, value in card(corpus).items():
        tqdm.write(f"  {name}: {value}")
    try:
        with stopping.stop_on_signal() as stop:
            rows = _all_rows(corpus, settings, folder, stop, clock)
            if rows is None:
                return _stopped(folder)
            report.write(folder, corpus, settings, rows, clock)
    finally:
        clock.keep()
    tqdm.write(report.samples(rows, corpus))
    for part in (report.table(rows), report.markov_table(rows)):
        tqdm.write("\n" + part)
    tqdm.write("\n" + "\n".join(report.answers(rows)))
    return 0


def _stopped(folder: Path | None) -> int:
    if folder is not None and (folder / CONFIG_FILE).exists():
        tqdm.write(f"Stopped. Go on with: --resume --out {folder}")
    else:
        tqdm.write("Stopped before the first checkpoint; nothing is kept.")
    return STOPPED


def _all_rows(
    corpus: Corpus,
    settings: Settings,
    folder: Path,
    stop: stopping.StopRequest,
    clock: Clock,
) -> list[Row] | None:
    """Networks first: they are what a user waits for, and what can be resumed.

    Returns None where a stop was asked for before every row was there.
    """
    rows = []
    for name in chosen(settings):
        trained = networks.train_network(
            name, corpus, settings, folder, stop, clock.keep
        )
        if stop.asked:
            return None
        rows.append(_network_row(name, trained, corpus, settings))
    key = jax.random.key(settings.seed)
    before: list[Row] = [baselines.uniform(corpus)]
    before += baselines.markov_rows(corpus, settings.sample_length, key, stop)
    if stop.asked:
        return None
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
        count_parameters(trained.model),
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
    if command.text.is_dir():
        raise ValueError(
            f"Expected a text file, got {command.text}: a folder. Name one file in it."
        )
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
