"""tersor: the fastest or smallest model that still holds the accuracy you refuse to lose.

Names are imported on first use, so that `import tersor` and `tersor --help` stay quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from tersor._version import __version__ as __version__

if TYPE_CHECKING:
    from tersor.search.optimize import optimize as optimize

#: Public name -> module that defines it.
_HOME = {
    "optimize": "tersor.search.optimize",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'tersor' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
