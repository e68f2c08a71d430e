"""The names and flags of compiled kernels: all that code depends on is in the name."""

from pathlib import Path

import pytest

from jrnn.kernels.cpu import fingerprint, toolchain
from jrnn.kernels.cpu.machine import Machine
from jrnn.kernels.cpu.toolchain import Compiler, build_flags

GCC = Compiler(("/usr/bin/cc",), "gcc", Path("/usr/bin/gcc-12"), "gcc 12.2\n9 bytes")


def test_all_that_code_depends_on_is_in_the_name(monkeypatch, tmp_path):
    monkeypatch.setattr(toolchain, "HEADERS", tmp_path)
    (tmp_path / "inner.h").write_text("int two = 2;", "utf-8")
    (tmp_path / "outer.h").write_text('  #  include "inner.h"\n', "utf-8")
    source = '#include "outer.h"\n#include <math.h>\n#include "xla/ffi/api/c_api.h"\n'
    assert set(fingerprint.headers(source)) == {
        *("outer.h", "inner.h", "xla/ffi/api/c_api.h")
    }
    flags = build_flags(GCC)
    names = [fingerprint.fingerprint(source, GCC, flags)]
    assert names[0] == fingerprint.fingerprint(source, GCC, flags)

    def note(source=source, flags=flags, **changed):
        name = fingerprint.fingerprint(source, GCC._replace(**changed), flags)
        names.append(name)

    note(source + "\n")
    note(flags=(*flags, "-O2"))
    note(path=Path("/usr/bin/gcc-13"))
    note(version="gcc 12.3\n9 bytes")
    note(command=(*GCC.command, "-m32"))
    machine = fingerprint.this_machine()
    for field in Machine._fields:
        other = machine._replace(**{field: "another"})
        with monkeypatch.context() as patch:
            patch.setattr(fingerprint, "this_machine", lambda other=other: other)
            note()
    with monkeypatch.context() as patch:
        patch.setattr(fingerprint, "jaxlib_version", lambda: "0.0.1")
        note()
    (tmp_path / "inner.h").write_text("int two = 3;", "utf-8")
    note()
    assert len(set(names)) == len(names) == 12


MACHINES = {
    "x86_64": ("gcc", {"-march=native"}),
    "amd64": ("zig", {"-mcpu=native"}),
    "arm64": ("clang", {"-mcpu=native"}),
    "riscv64": ("gcc", set()),
}


@pytest.mark.parametrize("architecture", MACHINES)
def test_the_machine_chooses_the_flags(architecture):
    family, native = MACHINES[architecture]
    machine = Machine(architecture, ("a CPU",), ("fma",), "linux")
    compiler = GCC._replace(family=family)
    flags = build_flags(compiler, machine)
    assert {flag for flag in flags if "native" in flag} == native
    assert "-ffast-math" not in flags
    wide = {"-mprefer-vector-width=512"}
    assert not wide & set(flags)
    assert wide < set(
        build_flags(compiler, machine._replace(instructions=("avx512f",)))
    )
