"""The commands, imported only when one is used, and the exit statuses that scripts rely on."""

import sys
import warnings

from cyclopts import App, CycloptsError

from tersor._version import __version__
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
    "bench": ("tersor.cli.bench:bench", "Race the free baselines: runtimes, threads, graph optimization."),
    "verify": ("tersor.cli.verify:verify", "Recompute the certificate of an output folder."),
}


def build_app() -> App:
    """Return the command-line application; no command is imported yet."""
    app = App(
        name="tersor",
        help="The fastest or smallest model that still holds the accuracy you refuse to lose, with a certificate.",
        version=__version__,
        suppress_keyboard_interrupt=False,
        help_format="markdown",
    )
    for name, (target, line) in COMMANDS.items():
        app.command(target, name=name, help=line)
    return app


def run(tokens: list[str]) -> int:
    """Run one command and return its exit status: 0, 1 error, 2 usage, 3 nothing better held, 130 interrupted."""
    # torch.export warns of its own internals whenever a graph is copied; nothing that a user could act on.
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
    try:
        return build_app()(tokens, exit_on_error=False, result_action="return_int_as_exit_code_else_zero")
    except CycloptsError:
        return 2
    except TersorError as error:
        sys.stderr.write(f"tersor: {error}\n")
        return 2 if isinstance(error, ArgumentError) else 1
    except KeyboardInterrupt:
        sys.stderr.write("tersor: interrupted\n")
        return 130
