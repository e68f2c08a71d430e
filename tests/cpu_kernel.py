"""A kernel of a few lines for tests, and compilers that are scripts."""

import itertools
import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from jrnn.kernels.cpu import compilers, targets

DOUBLE = r"""
#include "xla/ffi/api/c_api.h"
__attribute__((visibility("default")))
XLA_FFI_Error *Double(XLA_FFI_CallFrame *frame) {
  /* Only these names are the same in the headers of all versions of jaxlib. */
  XLA_FFI_Metadata_Extension *asked = (void *)frame->extension_start;
  if (asked && asked->extension_base.type == XLA_FFI_Extension_Metadata) {
    XLA_FFI_Metadata *about = asked->metadata;
    about->api_version.major_version = XLA_FFI_API_MAJOR;
    about->api_version.minor_version = XLA_FFI_API_MINOR;
    about->traits = 0;
    return 0;
  }
  XLA_FFI_Buffer *x = frame->args.args[0], *y = frame->rets.rets[0];
  int64_t size = 1;
  for (int64_t axis = 0; axis < x->rank; axis++) size *= x->dims[axis];
  for (int64_t i = 0; i < size; i++)
    ((float *)y->data)[i] = 2 * ((float *)x->data)[i];
  return 0;
}
XLA_FFI_Error *Hidden(XLA_FFI_CallFrame *frame) { return Double(frame); }
"""

# Linux and macOS: on Windows the scripts below do not run.
needs_cc = pytest.mark.skipif(
    os.name != "posix" or not shutil.which("cc"), reason="needs a C compiler, cc"
)
_count = itertools.count()


def double() -> str:
    """A source that no test of this process has had: a name is registered once."""
    return f"{DOUBLE}\n/* {os.getpid()} {next(_count)} */\n"


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the process one that has loaded nothing, and looked for no compiler."""
    monkeypatch.setattr(targets, "_loaded", {})
    compilers._find.cache_clear()


@pytest.fixture(autouse=True)
def empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A process that has compiled nothing, on a machine without a cache.

    It holds for every test of a module that imports it.
    """
    monkeypatch.setenv("JRNN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("JRNN_CC", raising=False)
    monkeypatch.setattr(compilers, "_zig", lambda: None)
    forget(monkeypatch)
    yield
    compilers._find.cache_clear()


def script(path: Path, *lines: str) -> Path:
    """Writes a program of the shell."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]), encoding="utf-8")
    path.chmod(0o755)
    return path


def counting(path: Path) -> Path:
    """Writes a compiler that notes, beside itself, each time that it compiles."""
    log, compiler = shlex.quote(f"{path}.log"), shlex.quote(str(shutil.which("cc")))
    return script(
        path,
        f'case "$*" in *kernel.c*) echo "$@" >> {log};; esac',
        f'exec {compiler} "$@"',
    )


def compiled(path: Path) -> int:
    """How often a compiler of `counting` has compiled, its trial included."""
    log = Path(f"{path}.log")
    return len(log.read_text("utf-8").splitlines()) if log.exists() else 0
