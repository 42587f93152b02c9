"""`tersor completion`: the script that makes a shell complete commands and options."""

import sys
from typing import Literal


def completion(shell: Literal["bash", "zsh", "fish"]) -> int:
    """Print the completion script of SHELL.

    For example, `tersor completion bash > ~/.local/share/bash-completion/completions/tersor`

    Args:
        shell: bash, zsh or fish.
    """
    from tersor.cli.app import build_app

    sys.stdout.write(build_app().generate_completion(shell=shell))
    return 0
