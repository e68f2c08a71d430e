"""The ways in, as a newcomer types them: a new environment, without any setting."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)
# What is installed for a page, or for the forecast of a table.
EXTRAS = {
    "docs/flax.md": "",
    "docs/files.md": "[files]",
    "docs/weights.md": "",
    "docs/sequences.md": "",
}


def bare(folder: Path) -> dict[str, str]:
    """The environment variables of an empty home."""
    return {"HOME": str(folder), "PATH": os.environ["PATH"]}


def installed(folder: Path, extras: str) -> str:
    """Makes an environment with jrnn alone; returns its Python."""
    env = bare(folder)
    subprocess.run([sys.executable, "-m", "venv", folder / "it"], env=env, check=True)
    python = str(folder / "it/bin/python")
    install = [python, "-m", "pip", "install", "--quiet", f"{ROOT}{extras}"]
    # Where packages come from is this machine's matter, not the newcomer's.
    pip = {n: v for n, v in os.environ.items() if n.startswith("PIP_")}
    subprocess.run(install, env=env | pip, check=True, timeout=900)
    return python


def run(command: list[str], folder: Path, **options) -> str:
    done = subprocess.run(
        command,
        env=bare(folder),
        capture_output=True,
        encoding="utf-8",
        timeout=600,
        check=False,
        **options,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.nightly
@pytest.mark.parametrize("page", EXTRAS)
def test_a_page_runs_where_only_jrnn_was_installed(page, tmp_path):
    python = installed(tmp_path, EXTRAS[page])
    code = "\n".join(CODE.findall((ROOT / page).read_text("utf-8")))
    run([python, "-c", code], tmp_path, cwd=tmp_path)


@pytest.mark.nightly
def test_a_table_is_forecast_where_only_the_experiments_were_installed(tmp_path):
    python = installed(tmp_path, "[experiments]")
    hours = np.datetime64("2024-01-01T00", "h") + np.arange(400)
    values = 5 + np.sin(np.arange(400) * np.pi / 12)
    noise = np.random.default_rng(0).normal(size=400)
    rows = [f"{h},{y:.3f}" for h, y in zip(hours, values + 0.1 * noise, strict=True)]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["hour,load", *rows]), encoding="utf-8")
    forecast = [python, "-m", "experiments.forecast"]
    given = ["--csv", str(table), "--time", "hour", "--value", "load"]
    small = ["--steps", "60", "--seeds", "0", "--origins", "10", "--horizon", "6"]
    folder = str(tmp_path / "run")
    told = run([*forecast, *given, *small, "--out", folder], tmp_path, cwd=ROOT)
    assert "GRU below persistence" in told
    ahead = run([*forecast, "predict", folder, str(table)], tmp_path, cwd=ROOT)
    assert "2024-01-17 16:00:00" in ahead
    row = "2024-01-17T16,5.1\n"
    said = run([*forecast, "stream", folder], tmp_path, cwd=ROOT, input=row)
    assert '"surprise"' in said


@pytest.mark.nightly
def test_kernels_are_compiled_by_the_compiler_of_the_extra(tmp_path):
    python = installed(tmp_path, "[cpu]")
    env = bare(tmp_path) | {"PATH": ""}
    for told in ("compiled in ", "compiled before"):
        done = subprocess.run(
            [python, "-m", "jrnn.kernels.cpu", "build"],
            env=env,
            cwd=tmp_path,
            capture_output=True,
            encoding="utf-8",
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert "/zig cc\n" in done.stdout
        assert done.stdout.count(told) == 6, done.stdout
