"""A training run on disk: one safetensors file, replaced atomically, never a pickle."""

import json
import os
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from tersor.errors import DataError
from tersor.recovery.snapshot import Snapshot


def save(snapshot: Snapshot, path: Path) -> None:
    """Write `snapshot` to `path` so that a killed process leaves the old file or the new one, whole.

    Args:
        snapshot: the state of a run; its numbers go to the header as JSON.
        path: file to replace; it belongs to one process at a time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    tensors = {name: tensor.cpu().contiguous() for name, tensor in snapshot.tensors.items()}
    save_file(tensors, draft, metadata={"tersor": json.dumps(snapshot.numbers)})
    with draft.open("rb") as handle:
        os.fsync(handle.fileno())
    draft.replace(path)


def load(path: Path) -> Snapshot | None:
    """Read what `save` wrote; None where there is no file.

    Raises:
        DataError: if the file is not a checkpoint of a training run.

    Example:
        >>> load(Path("no-such-run.safetensors")) is None
        True
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        return Snapshot(tensors, json.loads(header["tersor"]))
    except (SafetensorError, KeyError, ValueError) as error:
        raise DataError(
            f"{path} is not a checkpoint of a training run. Delete it to start afresh."
        ) from error
