"""Files that are damaged, altered, foreign, newer or older: one error, or the truth."""

import io
import json
import pickle
import random
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

import jrnn
from jrnn.interop import files
from jrnn.interop.files import CALL, LONGEST, METADATA, FileError, calls, container
from tests.golden.make_file import MADE, params_of
from tests.train.test_checkpoint_files import RAW, check_message, mutations

GOLDEN = Path(__file__).parents[1] / "golden"
CELL = jrnn.stack(jrnn.elman(2, 3), jrnn.dropout(jrnn.gru(3, 2), 0.5))
CHAIN = jrnn.markov_chain(3, 1)
COUNTS = CHAIN.fit(np.array([0, 1, 2, 0, 2, 1, 1]))


def bytes_of(tmp_path, made, params):
    jrnn.save(tmp_path / "made", made, params)
    return (tmp_path / "made").read_bytes()


@pytest.fixture
def raw(tmp_path):
    return bytes_of(tmp_path, CELL, params_of(CELL))


@pytest.fixture
def place(tmp_path):
    return tmp_path / "it"


def is_loaded(place, raw):
    """Loads a content; False for a FileError, and anything else is raised."""
    place.write_bytes(raw)
    try:
        made, params = jrnn.load(place)
    except FileError as error:
        text = str(error)
    else:
        return check_made(made, params, raw)
    assert text.endswith(f" File: {place}")
    return check_message(text)


def check_made(made, params, raw):
    assert isinstance(made, files.MADE)
    shapes = [leaf.shape for leaf in jax.tree.leaves(params)]
    tensors = container.unpack(raw)[0]
    assert sorted(shapes) == sorted(array.shape for array in tensors.values())
    return True


def resealed(raw, call=None, tensors=None, **texts):
    """The content with other texts or arrays, and the digest that they have."""
    arrays, known = container.unpack(raw)
    call = {} if call is None else {CALL: json.dumps(call)}
    arrays = arrays if tensors is None else tensors
    return container.pack(arrays, {**known, **call, **texts})


def call_in(raw):
    return json.loads(container.unpack(raw)[1][CALL])


def test_a_file_cut_short_at_any_place(raw, place):
    assert is_loaded(place, raw)
    for size in {*range(0, len(raw), 37), *range(24), len(raw) - 1}:
        assert not is_loaded(place, raw[:size])
    assert not is_loaded(place, raw + b"\0")
    assert not is_loaded(place, raw + raw)


def test_a_flipped_bit_at_any_place(raw, place):
    rng = random.Random(0)
    for at in rng.sample(range(len(raw)), 200):
        flipped = bytearray(raw)
        flipped[at] ^= 1 << rng.randrange(8)
        assert not is_loaded(place, bytes(flipped)), at


def test_calls_that_were_altered_under_a_right_digest(raw, place):
    call, loaded = call_in(raw), 0
    for path, altered in mutations(call):
        try:
            text = json.dumps(altered)
            content = resealed(raw, **{CALL: text})
        except (ValueError, TypeError):  # what no file can hold
            continue
        came = is_loaded(place, content)
        loaded += came
        if came and altered != call:  # another valid call, or one without an argument
            known = ("activation", "rate", "bias", "reset_after", "added")
            assert path[-1] in known or "_init" in path[-1], path
    assert loaded > 2


WRONG = {
    "a name that is not public": ("call", "jrnn.cells.build"),
    "a function of JAX": ("call", "jax.numpy.exp"),
    "a module of Python": ("call", "os.system"),
    "a path": ("call", "../../x"),
    "a dotted name": ("call", "jrnn.cells.gru.__wrapped__"),
    "a private name": ("call", "jrnn.core.pickling.find"),
    "an initialiser": ("call", "jrnn.initializers.embedding"),
}


@pytest.mark.parametrize("words", WRONG)
def test_only_public_factories_are_called(words, raw, place):
    key, name = WRONG[words]
    made = {key: name, "arguments": {"command": "false"}}
    assert not is_loaded(place, resealed(raw, {"format": 1, "made": made}))
    with pytest.raises(FileError, match="Expected one of the names"):
        jrnn.load(place)
    inside = call_in(raw)
    inside["made"]["arguments"]["cells"][0]["arguments"]["activation"] = made
    assert not is_loaded(place, resealed(raw, inside))
    function = {"function": name}
    inside["made"]["arguments"]["cells"][0]["arguments"]["activation"] = function
    content = resealed(raw, inside)
    known = name in ("jax.numpy.exp", "jrnn.initializers.embedding")
    assert is_loaded(place, content) == known  # an argument that is never called here


def test_calls_of_what_is_no_model(raw, place):
    made = {"call": "jrnn.initializers.normal", "arguments": {"std": 0.1}}
    for odd in (made, {"function": "jax.numpy.tanh"}, 3, None, [], "x"):
        assert not is_loaded(place, resealed(raw, {"format": 1, "made": odd}))


def test_sizes_that_no_such_file_needs(raw, place):
    s5 = {"input_size": 2, "hidden_size": 10**6}
    made = {"call": "jrnn.cells.s5", "arguments": s5}
    assert not is_loaded(place, resealed(raw, {"format": 1, "made": made}))
    with pytest.raises(FileError, match="hidden_size of jrnn.cells.s5 to be at most"):
        jrnn.load(place)
    for model, order in (("markov_chain", 10**12), ("linear_gaussian_markov", 10**9)):
        arguments = {"order": order} | ({"vocab_size": 3} if "c" in model[-5:] else {})
        made = {"call": f"jrnn.models.{model}", "arguments": arguments}
        assert not is_loaded(place, resealed(raw, {"format": 1, "made": made}))


def test_sizes_of_what_has_no_parameters_take_no_memory(raw, place):
    def layer(size):
        arguments = {"input_size": size, "function": {"function": "jax.numpy.tanh"}}
        return {"call": "jrnn.cells.stateless", "arguments": arguments}

    for size in (10**9, 10**15, 10**30):
        both = {"forward": layer(size), "backward": layer(size)}
        made = {"call": "jrnn.wrappers.bidirectional", "arguments": both}
        assert not is_loaded(place, resealed(raw, {"format": 1, "made": made}))
        content = resealed(raw, {"format": 1, "made": layer(size)}, {})
        assert is_loaded(place, content) or size == 10**30  # a FileError, or quick


def test_nesting_without_end(raw, place):
    for deep in ("[" * 10**5, '{"made":' * 10**5, "[" * 900 + "]" * 900):
        text = '{"format": 1, "made": ' + deep
        assert not is_loaded(place, resealed(raw, **{CALL: text}))
    made = call_in(raw)["made"]
    for _ in range(calls.LEVELS + 51):
        made = {"call": "jrnn.wrappers.dropout", "arguments": {"cell": made}}
    text = json.dumps({"format": 1, "made": made})
    assert not is_loaded(place, resealed(raw, **{CALL: text}))
    long = json.dumps({"format": 1, "made": "x" * LONGEST})
    assert not is_loaded(place, resealed(raw, **{CALL: long}))


def test_texts_that_are_something_else(raw, place):
    for other in RAW.values():
        text = other.decode(errors="replace")
        assert not is_loaded(place, resealed(raw, **{CALL: text}))
        place.write_bytes(resealed(raw, **{METADATA: text}))
        try:
            assert isinstance(files.read_metadata(place), dict)
        except FileError as error:
            check_message(str(error))


def arrays_altered(tensors):
    for name, array in tensors.items():
        others = {n: a for n, a in tensors.items() if n != name}
        yield others  # missing
        yield {**others, f"{name}_": array}
        for odd in (
            array[None],
            array[..., :-1],
            array.reshape(-1)[:0],
            array.astype(np.int32) if array.dtype.kind == "f" else array.astype("f4"),
        ):
            yield {**others, name: odd}
    yield {**tensors, "more": np.ones(2, np.float32)}
    yield {}


@pytest.mark.parametrize(("made", "params"), [(CELL, None), (CHAIN, COUNTS)])
def test_arrays_that_were_altered_under_a_right_digest(made, params, tmp_path, place):
    raw = bytes_of(tmp_path, made, params_of(made) if params is None else params)
    for tensors in arrays_altered(container.unpack(raw)[0]):
        assert not is_loaded(place, resealed(raw, tensors=tensors))


def test_the_error_names_the_array(raw, place):
    tensors = container.unpack(raw)[0]
    del tensors["1.W_h"]
    place.write_bytes(resealed(raw, tensors=tensors))
    with pytest.raises(FileError, match=r"missing: \['1.W_h'\], unknown: \[\]"):
        jrnn.load(place)
    tensors["1.W_h"] = np.ones((2, 5), np.float32)
    place.write_bytes(resealed(raw, tensors=tensors))
    with pytest.raises(FileError, match=r"floats of shape \(2, 6\) for 1.W_h of stack"):
        jrnn.load(place)


def foreign():
    arrays = {"W_x": np.ones((2, 3), np.float32)}
    yield safetensors.numpy.save(arrays, {"format": "pt"})
    yield safetensors.numpy.save(arrays)
    yield safetensors.numpy.save({"a": np.ones(2, bool)}, {CALL: "{}"})
    yield pickle.dumps(arrays)
    for write in (np.savez, lambda file, **a: np.save(file, a["W_x"])):
        file = io.BytesIO()
        write(file, **arrays)
        yield file.getvalue()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", "b")
    yield file.getvalue()
    yield from RAW.values()


def test_files_of_others(place):
    for content in foreign():
        assert not is_loaded(place, content)
        with pytest.raises(FileError):
            files.read_metadata(place)


def test_a_newer_file_says_so(raw, place):
    call = call_in(raw) | {"format": files.FORMATS[-1] + 1, "more": 3}
    place.write_bytes(resealed(raw, call))
    for read in (jrnn.load, files.read_metadata):
        with pytest.raises(FileError, match=r"a newer version of jrnn wrote; upgrade"):
            read(place)
    for odd in (0, -1, "1", True, 1.0, None, [1]):
        assert not is_loaded(place, resealed(raw, call | {"format": odd}))


@pytest.mark.parametrize("name", MADE)
def test_files_of_older_versions_load(name):
    """Never rewrite these files: they are what older versions wrote."""
    path = GOLDEN / f"file_1_{name}.safetensors"
    made, params = jrnn.load(path)
    assert made is MADE[name]
    for got, want in zip(
        jax.tree.leaves(params), jax.tree.leaves(params_of(MADE[name])), strict=True
    ):
        np.testing.assert_array_equal(got, want)
    assert files.read_metadata(path) == {"name": name}


def test_cells_are_nested_as_deeply_as_a_file_holds(place):
    cell = jrnn.gru(3, 2)
    for _ in range(calls.LEVELS + 1):
        cell = jrnn.stack(cell)
    params = params_of(cell)
    with pytest.raises(ValueError, match="at most 50 calls inside each other"):
        jrnn.save(place, cell, params)
    cell, params = cell.spec.arguments[0][1], params[0]
    jrnn.save(place, cell, params)
    assert jrnn.load(place)[0] is cell
