"""The recurrent networks: trained, stopped and resumed; loaded again; scored."""

import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from tqdm import tqdm

import jrnn
from experiments.data.text import Alphabet, Corpus, encode
from experiments.lab import files, stopping
from experiments.language_model.models import (
    CELLS,
    build,
    make_optimizer,
    match_hidden_size,
)
from experiments.language_model.settings import Settings, learning_rate
from jrnn import train

# Held-out text is scored as this many consecutive pieces side by side; each starts
# without context, 16 characters in 200,000.
EVALUATION_STREAMS = 16
EVALUATION_WINDOW = 256
# The learning curve is drawn from the beginning of the validation part alone.
CURVE_CHARACTERS = 40_000


class Job(NamedTuple):
    """What every network of a run is trained with.

    Attributes:
      corpus: The text.
      settings: Resolved.
      folder: The run folder; checkpoints and metrics go there.
      stop: Looked at between steps; once asked, a checkpoint is written.
      on_save: Called after each checkpoint.
    """

    corpus: Corpus
    settings: Settings
    folder: Path
    stop: stopping.StopRequest
    on_save: Callable[[], None]


class Progress(NamedTuple):
    """What a network's training has come to.

    Attributes:
      state: To go on from.
      best: The parameters that did best on the validation part so far.
      best_bits: Their bits per character there.
      best_step: After how many steps.
      seconds: Time spent in training steps, compilation included.
    """

    state: train.TrainState
    best: Any
    best_bits: float = math.inf
    best_step: int = 0
    seconds: float = 0.0


class Trained(NamedTuple):
    """A network after training.

    Attributes:
      model: The sequence model.
      params: Those that did best on the validation part (early stopping).
      step: After how many steps that was.
      seconds: Time spent in training steps, compilation included.
    """

    model: jrnn.models.SequenceModel
    params: Any
    step: int
    seconds: float


def checkpoint_path(folder: Path, name: str) -> Path:
    """Returns where a network's checkpoint lies in its run folder."""
    return folder / "checkpoints" / name


def check_fits(corpus: Corpus, settings: Settings) -> None:
    """Checks that the training text fills one window of every stream.

    Raises:
      ValueError: It does not.
    """
    if len(corpus.train) // settings.streams < settings.window:
        raise ValueError(
            f"Expected at least {settings.streams} x {settings.window} training "
            f"characters, got {len(corpus.train)}; lower --streams or --window."
        )


def train_network(name: str, job: Job) -> Trained:
    """Trains one network, from its checkpoint if there is one.

    Args:
      name: Of the cell.
      job: What it is trained with.

    Returns:
      The network, trained or stopped.

    Raises:
      FloatingPointError: Training stopped being finite.
    """
    corpus, settings, folder, _, on_save = job
    size = match_hidden_size(name, corpus.alphabet.size, int(settings.parameters or 1))
    model = build(name, corpus.alphabet.size, size)
    optimizer = make_optimizer(name, settings)
    ids = jnp.asarray(encode(corpus.alphabet, corpus.train))
    xs = np.asarray(train.streams(ids, settings.streams))
    key_init, key_run = jax.random.split(jax.random.key(settings.seed))
    params = model.init(key_init, jnp.dtype(settings.dtype))
    carry = model.init_state(params, (settings.streams,))
    state = train.init_train_state(params, optimizer, key_run, carry)
    # Training steps donate their parameters: what is kept beside them is a copy.
    progress = Progress(state, jax.tree.map(jnp.copy, params))
    path = checkpoint_path(folder, name)
    if train.has_checkpoint(path):
        (state, best), known = train.load_checkpoint(path, (state, progress.best))
        bits = math.inf if known["best_bits"] is None else known["best_bits"]
        progress = Progress(state, best, bits, known["best_step"], known["seconds"])
    files.keep_metrics(folder, name, int(progress.state.step))

    def save(progress: Progress) -> None:
        described = describe(name, size, corpus, settings)
        known = {
            "best_bits": None if progress.best_step == 0 else progress.best_bits,
            "best_step": progress.best_step,
            "seconds": progress.seconds,
        }
        train.save_checkpoint(path, progress[:2], {**described, **known})
        on_save()

    step = train.make_train_step(train.sequence_loss(model), optimizer)
    progress = _loop(job, name, model, step, xs, progress, save)
    return Trained(model, progress.best, progress.best_step, progress.seconds)


def _loop(
    job: Job,
    name: str,
    model: jrnn.models.SequenceModel,
    step: Callable[..., Any],
    xs: np.ndarray,
    progress: Progress,
    save: Callable[[Progress], None],
) -> Progress:
    corpus, settings, folder, stop, _ = job
    state, best, best_bits, best_step, seconds = progress
    steps, window = int(settings.steps or 1), settings.window
    per_pass = xs.shape[0] // window
    every = max(1, steps // settings.evaluations)
    shown = encode(corpus.alphabet, corpus.valid[:CURVE_CHARACTERS])
    first = int(state.step)
    with tqdm(total=steps, initial=first, desc=name, unit="step") as bar:
        for number in range(first, steps):
            started = time.perf_counter()
            place = number % per_pass * window
            state, metrics = step(state, jnp.asarray(xs[place : place + window]))
            bits = float(metrics["loss"]) / math.log(2)
            norm = float(metrics["gradient_norm"])
            seconds += time.perf_counter() - started
            check_finite(name, number + 1, {"loss": bits, "gradient": norm}, settings)
            characters = (number + 1) * window * settings.streams
            bar.set_postfix_str(
                f"loss {bits * math.log(2):.3f}, {bits:.3f} bits/char, "
                f"{characters / seconds / 1000:.1f}k chars/s",
                refresh=False,
            )
            bar.update()
            due = (number + 1) % every == 0 or number + 1 == steps
            if due:
                valid = bits_per_character(model, state.params, shown)
                check_finite(name, number + 1, {"validation": valid}, settings)
                if valid < best_bits:
                    best = jax.tree.map(jnp.copy, state.params)  # steps donate theirs
                    best_bits, best_step = valid, number + 1
                row = {
                    "model": name,
                    "step": number + 1,
                    "characters": characters,
                    "train_bits": bits,
                    "valid_bits": valid,
                    "gradient_norm": norm,
                }
                files.append_metrics(folder, row)
            if due or stop.asked:
                progress = Progress(state, best, best_bits, best_step, seconds)
                save(progress)
            if stop.asked:
                break
    return progress


def check_finite(
    name: str, step: int, found: dict[str, float], settings: Settings
) -> None:
    """Ends a training that can only go on with NaN.

    Raises:
      FloatingPointError: A number is not finite.
    """
    bad = {what: value for what, value in found.items() if not math.isfinite(value)}
    if bad:
        wider = "" if settings.dtype == "float32" else ", or --dtype float32"
        raise FloatingPointError(
            f"Expected training of {name} to stay finite, got {bad} at step {step}. "
            f"Start a new run with --learning-rate below "
            f"{learning_rate(name, settings)} or --clip below {settings.clip}{wider}."
        )


def describe(
    name: str, hidden_size: int, corpus: Corpus, settings: Settings
) -> dict[str, Any]:
    """Returns what is needed to build the network again, as JSON can hold it."""
    return {
        "cell": name,
        "hidden_size": hidden_size,
        "characters": corpus.alphabet.characters,
        "corpus_sha256": corpus.sha256,
        **{k: getattr(settings, k) for k in ("dtype", "streams", "clip", "steps")},
        "learning_rate": learning_rate(name, settings),
    }


def load_network(path: Path) -> tuple[jrnn.models.SequenceModel, Any, Alphabet]:
    """Returns model, parameters and alphabet of a checkpoint.

    Raises:
      CheckpointError: There is none, or it was damaged.
      ValueError: It is not one of this experiment.
    """
    places = [place / name for place in (path / "checkpoints", path) for name in CELLS]
    inside = [str(place) for place in places if train.has_checkpoint(place)]
    if inside:
        raise ValueError(
            f"Expected a checkpoint, got {path}, which holds several things; give "
            f"{' or '.join(inside)}."
        )
    metadata = train.read_metadata(path)
    trained_by = ("steps", "streams", "clip", "learning_rate")
    needed = {"cell", "hidden_size", "characters", "dtype", "best_step", *trained_by}
    if not needed <= set(metadata):
        raise ValueError(
            f"Expected a checkpoint of this experiment in {path}, got one without "
            f"{sorted(needed - set(metadata))}; give a folder like "
            "runs/language_model/0001/checkpoints/gru."
        )
    alphabet = Alphabet(metadata["characters"])
    model = build(metadata["cell"], alphabet.size, metadata["hidden_size"])
    settings = Settings(**{name: metadata[name] for name in trained_by})
    params = model.init(jax.random.key(0), jnp.dtype(metadata["dtype"]))
    carry = model.init_state(params, (settings.streams,))
    optimizer = make_optimizer(metadata["cell"], settings)
    like = train.init_train_state(params, optimizer, jax.random.key(0), carry)
    return model, train.load_checkpoint(path, (like, params))[0][1], alphabet


@functools.cache
def _metric(model: jrnn.models.SequenceModel) -> Callable[..., Any]:
    def metric(
        params: Any, batch: tuple[Array, Array], carry: Any
    ) -> tuple[Array, Array, Any]:
        ids, lengths = batch
        carry, log_probs = model.log_prob(params, ids, carry, lengths)
        return -log_probs.sum(), lengths.sum(), carry

    return metric


def bits_per_character(
    model: jrnn.models.SequenceModel, params: Any, ids: np.ndarray
) -> float:
    """Returns the mean of -log2 P over all characters of a held-out text."""
    count = min(EVALUATION_STREAMS, len(ids))
    piece = -(-len(ids) // count)
    window = min(EVALUATION_WINDOW, piece)
    padded = -(-piece // window) * window
    lengths = np.clip(len(ids) - piece * np.arange(count), 0, piece)
    laid = np.zeros((count, padded), np.int32)
    for i in range(count):
        laid[i, : lengths[i]] = ids[i * piece : i * piece + lengths[i]]

    def batches() -> Any:
        for place in range(0, padded, window):
            left = np.clip(lengths - place, 0, window).astype(np.int32)
            yield laid[:, place : place + window].T, left

    carry = model.init_state(params, (count,))
    return train.evaluate(_metric(model), params, batches(), carry) / math.log(2)
