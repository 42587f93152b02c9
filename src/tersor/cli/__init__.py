"""Command line.

One file a command: it parses, calls the public function of the same name, and prints. `main` is the entry point.
"""

import sys


def main() -> None:
    """Run the command line and exit with its status: 0, 1 error, 2 usage, 3 nothing faster held, 130 interrupted."""
    from tersor.cli.app import run

    sys.exit(run(sys.argv[1:]))
