"""One short run of each experiment: its arguments, and where its results then are."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

OUT = "OUT"  # stands for the folder of a run
STORY = "It was a dark and stormy night; the rain fell in torrents. " * 60
# By name: the module below `experiments`, and its arguments.
COMMANDS = {
    "digits": ("digits --tasks mnist1d --seeds 0 --epochs 1 --hidden 2 --out OUT/run"),
    "dna": (
        "dna --bases 40000 --networks lstm --largest-order 2 --smoothings 1 --gammas "
        "0.98 --hidden 4 --word 2 --epochs 0.2 --streams 16 --window 32 --evaluations "
        "1 --block 1000 --gene-order 2 --gene-windows 48 --gene-epochs 0.1 "
        "--spacer-epochs 0.5 --shown 1000 --repeat 12 --out OUT/run"
    ),
    "ecg": (
        "ecg --seeds 0 --cells GRU --hidden 4 --components 2 --steps 6 --streams 4 "
        "--window 20 --warmup 2 --every 3 --draws 20 --out OUT/run"
    ),
    "glucose": (
        "glucose --seeds 0 --hidden 3 --epochs 2 --window 20 --batch 4 --every 1 "
        "--orders 1 2 --widths 20 --learning-rates 0.01 --draws 20 --out OUT/run"
    ),
    "gradient_check": (
        "gradient_check --steps 6 --batch 2 --inputs 3 --hidden 4 --out OUT/run"
    ),
    "gradient_flow": (
        "gradient_flow --hidden 4 --steps 12 --beyond 5 --batch 3 --measured 2 "
        "--updates 2 --exploding-updates 3 --cells elman lstm --seeds 0 --out OUT/run"
    ),
    "language_model": (
        "language_model --text OUT/story.txt --model gru --parameters 600 --streams 4 "
        "--window 16 --steps 6 --evaluations 2 --sample-length 20 --out OUT/run"
    ),
    "long_memory": (
        "long_memory --only adding --lengths 100 --cells lstm lru --seeds 0 "
        "--sequences 64 --every 64 --evaluated 32 --tested 32 --hidden 8 --store "
        "OUT/found.json --figure OUT/found.png"
    ),
    "newton": (
        "parallel_in_time convergence --cells gru --hidden 2 --steps 100 --dtypes "
        "float32 --training 3 --scales 1.5 --dampings 0 --out OUT/found.json"
    ),
    "learning": (
        "parallel_in_time.learning --tasks parity --cells gru lru diagonal_gru "
        "--seeds 0 --learning-rates 0.01 --steps 4 4 4 --hidden 4 4 4 --batch 4 4 4 "
        "--length 8 --longer 16 --out OUT/run"
    ),
    "stocks": (
        "stocks --networks gru,_t --seeds 0 --hidden 2 --rates 0.01 --updates 3 "
        "--draws 200 --out OUT/run"
    ),
    "variable_lengths": (
        "variable_lengths --seeds 0 --steps 3 --batch 16 --hidden 3 --learning-rates "
        "0.01 --evaluations 2 --no-new-voices --out OUT/run"
    ),
}


def run(name: str, target: Path, root: Path, environment: dict[str, str]) -> None:
    """Runs an experiment within a commit and copies its results to `target`.

    A run that wrote none leaves how it ended there: its status and last line.
    """
    with tempfile.TemporaryDirectory() as out:
        (Path(out) / "story.txt").write_text(STORY, encoding="utf-8")
        words = COMMANDS[name].split()
        module, *given = (w.replace(OUT, out).replace(",_", ", ") for w in words)
        command = [sys.executable, "-P", "-m", f"experiments.{module}", *given]
        done = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True
        )
        for written in ("run/results.json", "found.json"):
            if (Path(out) / written).exists():
                shutil.copy(Path(out) / written, target)
                return
        last = (done.stderr.strip().splitlines() or [""])[-1]
        failed = {"failed": f"status {done.returncode}: {last.replace(out, OUT)}"}
        target.write_text(json.dumps(failed), encoding="utf-8")
