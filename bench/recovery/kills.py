"""`python -m bench.recovery.kills`: `tersor train` killed ten times at random moments ends with the same bits.

Writes bench/results/resume.md.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safetensors.torch import load_file

RESULTS = Path(__file__).parents[1] / "results"
WORDS = ["tersor.cli.digits:ConvNet", "--data=sklearn:digits", "--epochs=12", "--batch=16", "--average=0.99"]
KILLS = 10


def started(output: Path) -> subprocess.Popen:
    """Start or continue the training in `output`, on one thread."""
    command = [sys.executable, "-c", "from tersor.cli import main; main()", "train", *WORDS]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, "--resume", f"--output={output}"], env=environment, **quiet)


def killed(output: Path, moments: random.Random) -> str:
    """Run until some time after the next snapshot, then kill; return what was reached."""
    state, process = output / "run" / "training.safetensors", started(output)
    seen = state.stat().st_mtime_ns if state.exists() else 0
    while process.poll() is None and (not state.exists() or state.stat().st_mtime_ns == seen):
        time.sleep(0.01)
    time.sleep(moments.uniform(0, 0.2))
    process.send_signal(signal.SIGKILL)
    return "killed" if process.wait() == -signal.SIGKILL else "ended"


def main() -> None:
    """Kill, resume, compare with an undisturbed run, write the outcome."""
    with tempfile.TemporaryDirectory() as folder:
        disturbed, whole = Path(folder) / "disturbed", Path(folder) / "whole"
        moments = random.Random(0)
        ends = [killed(disturbed, moments) for _ in range(KILLS)]
        for output in (disturbed, whole):
            assert started(output).wait() == 0
        first, second = load_file(disturbed / "model.safetensors"), load_file(whole / "model.safetensors")
        losses = [
            json.loads((output / "training.json").read_text())["losses"] for output in (disturbed, whole)
        ]
    same = all((first[name] == second[name]).all() for name in second) and losses[0] == losses[1]
    text = (
        f"# Resuming after SIGKILL\n\n`tersor train {' '.join(WORDS)}`, killed {ends.count('killed')} times at random "
        f"moments and continued with --resume, against an undisturbed run of {len(losses[1])} steps on one thread: "
        f"weights and losses are {'equal bit for bit' if same else 'DIFFERENT'}.\n"
    )
    (RESULTS / "resume.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
