"""Hidden folders beside an output folder while it is replaced, and what a killed process leaves of them."""

import hashlib
import os
import platform
import re
import secrets
import shutil
from pathlib import Path

import psutil


def beside(destination: Path) -> Path:
    """Return a fresh hidden name beside `destination`, which tells the machine and the process that uses it.

    Example:
        >>> beside(Path("/a/out")).name.startswith(".out.")
        True
    """
    owner = f"{_machine()}-{os.getpid()}-{secrets.token_hex(3)}"
    return destination.with_name(f".{destination.name}.{owner}.new")


def aside(fresh: Path) -> Path:
    """Return where the earlier folder waits while `fresh` takes its place."""
    return fresh.with_suffix(".old")


def remains(destination: Path) -> tuple[Path, ...]:
    """Return what processes of this machine that have ended left beside `destination`, in the order of their age."""
    name = re.compile(rf"\.{re.escape(destination.name)}\.{_machine()}-(?P<process>\d+)-[0-9a-f]+\.(new|old)")
    try:
        found = [(name.fullmatch(path.name), path) for path in destination.parent.iterdir()]
    except OSError:
        return ()
    left = [path for match, path in found if match and not psutil.pid_exists(int(match["process"]))]
    return tuple(sorted((path for path in left if path.is_dir()), key=_age))


def restore_folder(destination: Path) -> Path:
    """Return `destination`; where a process was killed while it replaced it, the earlier one takes its place again.

    Args:
        destination: absolute path of a folder that tersor wrote.
    """
    waiting = [path for path in remains(destination) if path.suffix == ".old"]
    if waiting and not destination.exists():
        waiting[-1].rename(destination)
    return destination


def clear_remains(destination: Path) -> None:
    """Remove what killed processes left beside `destination`, once an earlier folder that waits there is back."""
    restore_folder(destination)
    for path in remains(destination):
        shutil.rmtree(path, ignore_errors=True)


def _age(path: Path) -> float:
    return path.lstat().st_mtime


def _machine() -> str:
    """Return a short name of this machine: numbers of processes say nothing about another one's."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]
