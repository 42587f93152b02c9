"""The end of a command that made a Result: save it, show it, and say what to do next."""

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tersor.search.result import Result


def finish(
    result: "Result",
    output: Path,
    *,
    command: str,
    config: str | None = None,
    json: bool = False,
    examples: int = 0,
) -> int:
    """Save `result` in `output`, print it, and return the exit status.

    Args:
        result: what was found.
        output: the folder to write.
        command: the command line that leads to it.
        config: its words as TOML; None takes those of the command that is running.
        json: print the report as JSON.
        examples: samples whose answer changed to show in the report.
    """
    from tersor.cli.config import used_words
    from tersor.cli.trackers import trackers
    from tersor.reporting.report import render_json
    from tersor.reporting.terminal import render_terminal

    config = used_words() if config is None else config
    folder = result.save(output, command=command, config=config, examples=examples)
    record = result.record(command, config, examples)
    for tracker in trackers():
        tracker.finish(record)
    if json:
        sys.stdout.write(render_json(record))
    else:
        terminal = sys.stdout.isatty()
        width = shutil.get_terminal_size().columns
        sys.stdout.write(render_terminal(record, terminal=terminal, width=width) + "\n")
        sys.stdout.write(next_steps(folder))
    sys.stdout.flush()
    return result.outcome.exit_code


def next_steps(folder: Path) -> str:
    """Return the commands to try with what was written."""
    from tersor.reporting.runner import MODELS

    try:
        shown = folder.relative_to(Path.cwd())
    except ValueError:
        shown = folder
    certified = (folder / "certificate.json").is_file()
    model = next((name for name in MODELS if (folder / name).is_file()), "no model")
    listed = f"{model}, certificate.json" if certified else f"{model} (the original)"
    verify = (
        f"       tersor verify {shown}                 recompute the certificate from the stored outcomes\n"
    )
    return (
        f"\nwrote {shown}/   {listed}, report.html, run.py, README.md\n"
        f"next:  python {shown}/run.py                 run the file; it needs only the runtime\n"
        f"{verify if certified else ''}"
        f"       open {shown}/report.html              the whole story on one page\n"
    )
