"""The commands, imported only when one is used, and the exit statuses that scripts rely on."""

import logging
import sys
import warnings
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from cyclopts import App, CycloptsError
from cyclopts.config import Env, Toml

from tersor._version import __version__
from tersor.cli.config import as_toml, split_config, take, used
from tersor.errors import ArgumentError, TersorError

#: Command -> the module and function that carry it out, and one line about it.
COMMANDS = {
    "demo": (
        "tersor.cli.demo:demo",
        "Train a small network on bundled data, then make it faster and certify it.",
    ),
    "check": ("tersor.cli.check:check", "Show how model and data go together, in seconds, without a search."),
    "optimize": (
        "tersor.cli.optimize:optimize",
        "Find the fastest or smallest model that holds the accuracy.",
    ),
    "resume": ("tersor.cli.resume:resume", "Go on with a search that was stopped or killed."),
    "train": (
        "tersor.cli.train:train",
        "Train a model from scratch or from trained weights; killed, it resumes.",
    ),
    "distill": ("tersor.cli.distill:distill", "Train a student to answer as a teacher does."),
    "bench": ("tersor.cli.bench:bench", "Race the free baselines: runtimes, threads, graph optimization."),
    "eval": ("tersor.cli.evaluate:evaluate", "Take the metric of a model or a file on data."),
    "compare": (
        "tersor.cli.compare:compare",
        "Race two models or files, and compare quality, size and memory.",
    ),
    "export": ("tersor.cli.export:export", "Write a model as a file of a runtime, compared with the model."),
    "prune": ("tersor.cli.prune:prune", "Cut channels, heads and features once, with a proof."),
    "quantize": ("tersor.cli.quantize:quantize", "Write a model as a file that computes in integers."),
    "groups": ("tersor.cli.groups:groups", "List what can be pruned, and what cannot and why."),
    "verify": ("tersor.cli.verify:verify", "Recompute the certificate of an output folder."),
    "report": ("tersor.cli.report:report", "Write the documents of an output folder again."),
    "index": ("tersor.cli.index:index", "Write one page over many runs."),
    "inspect": ("tersor.cli.inspect:inspect", "Say what a file holds and whether it could run code."),
    "doctor": ("tersor.cli.doctor:doctor", "Show processor, runtimes and extras, and what is missing."),
    "completion": ("tersor.cli.completion:completion", "Print the completion script of a shell."),
}

_EVERYWHERE = """Every command also takes `--config FILE` (TOML, one table a command; each output folder holds the
`config.toml` that repeats it) and environment variables such as `TERSOR_OPTIMIZE_MAX_DROP`. Words on the command line
come first, then the environment, then the file. `--track tensorboard:DIR`, `mlflow:URI` or `wandb:PROJECT` logs what
happens, and the numbers of every candidate.

Exit status: 0 done, 1 error, 2 wrong usage, 3 nothing better held, 130 interrupted.
"""


def build_app(config: Path | None = None) -> App:
    """Return the command-line application; no command is imported yet.

    Args:
        config: a TOML file with words that the command line leaves out.
    """
    app = App(
        name="tersor",
        help="The fastest or smallest model that still holds the accuracy you refuse to lose, with a certificate.",
        help_epilogue=_EVERYWHERE,
        version=__version__,
        suppress_keyboard_interrupt=False,
        help_format="markdown",
        config=[Env("TERSOR_", show=False), *([Toml(config, must_exist=True)] if config else [])],
    )
    for name, (target, line) in COMMANDS.items():
        app.command(target, name=name, help=line, help_epilogue="")
    return app


def _tracking(places: list[str]) -> AbstractContextManager[None]:
    if not places:
        return nullcontext()
    from tersor.cli.trackers import tracking

    return tracking(places)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def run(tokens: list[str]) -> int:
    """Run one command and return its exit status: 0, 1 error, 2 usage, 3 nothing better held, 130 interrupted."""
    # torch.export warns of its own internals whenever a graph is copied; nothing that a user could act on.
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
    # Transformers imports torchao, which tells of kernels for GPUs that are not there, and of how it registers enums.
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).addFilter(_is_error)
    try:
        words, config = split_config(tokens, COMMANDS)
        words, places = take(words, "--track", "tensorboard:DIR, mlflow:URI or wandb:PROJECT")
        command, bound, _ = build_app(config).parse_args(words, exit_on_error=False)
        with used(as_toml(next(iter(words), ""), bound)), _tracking(places):
            status = command(*bound.args, **bound.kwargs)
        return status if isinstance(status, int) else 0
    except CycloptsError:
        return 2
    except TersorError as error:
        sys.stderr.write(f"tersor: {error}\n")
        return 2 if isinstance(error, ArgumentError) else 1
    except KeyboardInterrupt:
        sys.stderr.write("tersor: interrupted\n")
        return 130
