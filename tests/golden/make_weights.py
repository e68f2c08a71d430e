"""python -m tests.golden.make_weights

Writes what Keras, Haiku and Equinox compute, one .npz for each library, for tests that
do not have them; each file says which versions made it. Arrays keep their names in the
library, after `CASE/param/` and `CASE/grad/`; all is float32 and batch first. Flax is
installed wherever tests run.
"""

import importlib.metadata
import json
import platform
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from tests.interop.peers import CASES, compute, draw

HERE = Path(__file__).parent
PACKAGES = {"keras": "keras", "haiku": "dm-haiku", "equinox": "equinox"}


def versions(library: str) -> str:
    names = (PACKAGES[library], "jax", "numpy")
    told = {name: importlib.metadata.version(name) for name in names}
    return json.dumps(
        told | {"python": platform.python_version(), "machine": platform.machine()}
    )


def main() -> None:
    files: dict[str, dict[str, np.ndarray]] = {}
    for name, case in CASES.items():
        if name.split()[0] not in PACKAGES:
            continue
        arrays, xs = draw(name, case, jnp.float32)
        found = compute(case, case.ys, arrays, xs)
        found |= {"xs": xs} | {f"param/{n}": a for n, a in arrays.items()}
        held = files.setdefault(name.split()[0], {})
        held |= {f"{name}/{n}": np.asarray(a) for n, a in found.items()}
    for library, held in files.items():
        path = HERE / f"weights_{library}.npz"
        np.savez_compressed(path, versions=versions(library), **held)
        print(path.name, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
