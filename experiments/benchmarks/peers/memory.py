"""How much memory a training step takes, each library in a process of its own.

The peak of the resident memory during a step, less what was resident before it, as
Linux counts it. The compiler's own plan stands beside it where there is one.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from experiments.benchmarks.peers.problems import TRAINING, Shape, make_problem

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
KIB, MIB = 1024, 1024**2


def of_child(system: str, cell: str, shape: Shape) -> dict[str, Any]:
    """Measures one library in a fresh process.

    Raises:
      ValueError: This is no Linux, or the process failed.
    """
    if not CLEAR.exists():
        raise ValueError("Expected Linux for --memory, which reads /proc; got another.")
    command = [sys.executable, "-m", __name__, system, cell, *map(str, shape)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"Expected {system} to run, got:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _resident(which: str) -> int:
    for line in STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(which):
            return int(line.split()[1]) * KIB
    raise ValueError(f"Expected {which} in {STATUS}, got none.")


def measure(system: str, cell: str, shape: Shape) -> dict[str, Any]:
    """Returns the bytes that one training step adds to this process, at its peak."""
    from experiments.benchmarks.peers.running import runners

    runner = runners(make_problem(cell, shape), (system,))[system]
    step = runner.runs[TRAINING]
    peaks = []
    for _ in range(3):
        CLEAR.write_text("5", encoding="ascii")  # the peak starts anew, at what is now
        before = _resident("VmRSS")
        result = step()
        peaks.append(_resident("VmHWM") - before)
        del result
    planned = runner.temporary_bytes[TRAINING]
    return {
        "cell": cell,
        "shape": list(shape),
        "system": system,
        "peak_bytes": max(peaks),
        "planned_temporary_bytes": planned,
    }


if __name__ == "__main__":
    name, which, *numbers = sys.argv[1:]
    print(json.dumps(measure(name, which, Shape(*map(int, numbers)))))
