"""Import what the user names on the command line: `module:attribute` or `file.py:attribute`.

This runs the user's own code, as `python file.py` would. It is called only for
references that the user typed, never for names found inside a model or data file.
"""

import contextlib
import hashlib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from tersor.errors import TersorError

#: Characters of another library's message that are shown.
_LONGEST = 400
_FILE = re.compile(r"(?P<file>.+\.py):(?P<name>[A-Za-z_][\w.]*)")
_MODULE = re.compile(r"(?P<module>[A-Za-z_][\w.]*):(?P<name>[A-Za-z_][\w.]*)")


def is_entry_point(reference: str) -> bool:
    """Return whether `reference` has the form `module:attribute` or `file.py:attribute`.

    Example:
        >>> is_entry_point("mypkg.models:build"), is_entry_point("./train.py:build"), is_entry_point("model.onnx")
        (True, True, False)
    """
    return bool(_FILE.fullmatch(reference) or _MODULE.fullmatch(reference))


def load_object(reference: str, error: type[TersorError]) -> Any:
    """Import the object that `reference` names.

    Args:
        reference: `module:attribute` or `file.py:attribute`; attributes may be dotted.
        error: class of the exception raised, so that a model's fault is a `ModelError` and data's a `DataError`.

    Returns:
        The object.

    Raises:
        TersorError: of class `error`, if the module does not import or has no such attribute.

    Example:
        >>> load_object("math:cos", TersorError)(0.0)
        1.0
    """
    # Code that imports Keras gets the backend that tersor can use, unless the user has chosen one.
    os.environ.setdefault("KERAS_BACKEND", "torch")
    file = _FILE.fullmatch(reference)
    dotted = _MODULE.fullmatch(reference)
    if file:
        module, name = _import_file(Path(file["file"]), reference, error), file["name"]
    elif dotted:
        module, name = _import_module(dotted["module"], reference, error), dotted["name"]
    else:
        raise error(f"{reference!r} is not of the form 'module:attribute' or 'file.py:attribute'.")
    return _attribute(module, name, reference, error)


def _attribute(module: ModuleType, name: str, reference: str, error: type[TersorError]) -> Any:
    found: Any = module
    for part in name.split("."):
        names = vars(found) if isinstance(found, ModuleType) else dir(found)
        try:
            found = getattr(found, part)
        except AttributeError:
            close = get_close_matches(part, [n for n in names if not n.startswith("_")], n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise error(f"{reference!r}: the module imports, but has no attribute {part!r}.{hint}") from None
    return found


def _import_module(name: str, reference: str, error: type[TersorError]) -> ModuleType:
    with _on_path(Path.cwd()), _explained(reference, error):
        return importlib.import_module(name)


def _import_file(path: Path, reference: str, error: type[TersorError]) -> ModuleType:
    if not path.is_file():
        raise error(f"{reference!r}: there is no file {str(path)!r} (looked from {str(Path.cwd())!r}).")
    path = path.resolve()
    # One name per file: importing it twice gives the same classes, so isinstance and copying keep working.
    name = f"{path.stem}_{hashlib.blake2b(str(path).encode(), digest_size=4).hexdigest()}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise error(f"{reference!r}: {str(path)!r} cannot be imported as Python.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _on_path(path.parent), _explained(reference, error):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextlib.contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    """Let the imported code import its neighbours, as `python file.py` does."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))


@contextlib.contextmanager
def _explained(reference: str, error: type[TersorError]) -> Iterator[None]:
    # User code may raise anything, SystemExit included (a script without a main guard).
    try:
        yield
    except TersorError:
        raise
    except (Exception, SystemExit) as cause:
        raise error(f"{reference!r} does not import: {first_line(cause)}") from cause


def first_line(cause: BaseException) -> str:
    r"""Return the class and the first line of an exception's message, cut to `_LONGEST` and without control codes.

    A message may quote what a file holds, and a file may hold anything.

    Example:
        >>> first_line(ValueError("two words\nand more"))
        'ValueError: two words'
        >>> first_line(ValueError("\x1b[31mred"))
        'ValueError: ?[31mred'
    """
    lines = str(cause).strip().splitlines()
    shown = "".join(c if c.isprintable() else "?" for c in lines[0].strip()) if lines else ""
    shown = shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}..."
    return f"{type(cause).__name__}: {shown}" if shown else type(cause).__name__
