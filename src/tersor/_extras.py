"""Import an optional dependency, or say exactly how to get it."""

import importlib
from types import ModuleType

from tersor.errors import MissingExtraError


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import `module`, which comes with `pip install 'tersor[extra]'`.

    Call it inside the function that needs it, never at import time. Only the
    absence of `module` itself is translated; an error raised *by* an installed
    module is a fault there and is not hidden.

    Raises:
        MissingExtraError: if `module` is not installed.

    Example:
        >>> require("json", extra="none", purpose="reading a file").loads("[1]")
        [1]
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise MissingExtraError(
            f"{purpose} needs `{module}`, which is not installed. Install it with: pip install 'tersor[{extra}]'"
        ) from error
