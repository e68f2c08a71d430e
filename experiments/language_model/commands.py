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
from experiments.data.text import (
    KJV,
    Alphabet,
    Corpus,
    card,
    decode,
    encode,
    load_corpus,
    read_text,
)
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
            rows = _all_rows(networks.Job(corpus, settings, folder, stop, clock.keep))
            if rows is None:
                return _stopped(folder)
            report.write(folder, corpus, settings, rows, clock)
    finally:
        clock.keep()
    tqdm.write(report.samples(rows, corpus))
    answers = "\n".join(report.answers(rows))
    for part in (report.table(rows), report.markov_table(rows), answers):
        tqdm.write("\n" + part)
    return 0


def _stopped(folder: Path | None) -> int:
    if folder is not None and (folder / CONFIG_FILE).exists():
        tqdm.write(f"Stopped. Go on with: --resume --out {folder}")
    else:
        tqdm.write("Stopped before the first checkpoint; nothing is kept.")
    return STOPPED


def _all_rows(job: networks.Job) -> list[Row] | None:
    """Networks first: they are what a user waits for, and what can be resumed.

    Returns None where a stop was asked for before every row was there.
    """
    corpus, settings, _, stop, _ = job
    rows = []
    for name in chosen(settings):
        trained = networks.train_network(name, job)
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
    model, params, step, seconds = trained
    bits = lambda part: _bits(model, params, corpus.alphabet, part)
    key = jax.random.key(settings.seed)
    ids = model.sample(params, key, settings.sample_length)
    extra = {"hidden_size": model.cell.spec.output_size, "step": step}
    extra["sample"] = np.asarray(ids).tolist()
    size = count_parameters(model)
    return Row(name, bits(corpus.valid), bits(corpus.test), size, seconds, extra)


def _bits(model: Any, params: Any, alphabet: Alphabet, text: str) -> float:
    """Returns bits per character of a text, characters never shown included."""
    bits = networks.bits_per_character(model, params, encode(alphabet, text))
    return baselines.with_unknown(bits, alphabet, text)


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
    bits = _bits(model, params, alphabet, text)
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
