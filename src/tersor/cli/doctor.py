"""`tersor doctor`: what this machine and this installation can do. Imports neither torch nor a runtime."""

import re
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from typing import TYPE_CHECKING

from tersor.cli.answer import Json, columns, show

if TYPE_CHECKING:
    from tersor.measurement.machine import Machine

#: Extra -> what it adds, for those whose packages do not say it.
_ADDS = {
    "sklearn": "the demo, and scikit-learn's data sets by name",
    "hf": "models of the Hugging Face hub, and saved folders",
    "parquet": "parquet files and images as data",
    "search": "Optuna's samplers for the search",
    "dist": "recovery training on several devices",
    "timm": "image models by name (timm:NAME)",
    "openvino": "the OpenVINO runtime",
    "executorch": "files for phones and small boards, and ExecuTorch to run them here",
    "table": "CSV files as data, and results as a table",
    "keras": "Keras 3 models",
    "ray": "candidates on many machines",
    "docs": "building the documentation",
    "track": "TensorBoard as a tracker",
    "test": "working on tersor",
}
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_EXTRA = re.compile(r"extra\s*==\s*['\"]([\w-]+)['\"]")


def doctor(*, json: Json = False) -> int:
    """Show processor, threads, runtimes and extras, and what each of them is good for.

    For example, `tersor doctor`

    Args:
        json: print JSON.
    """
    from tersor.measurement.machine import this_machine, usable_cores

    machine = this_machine()
    runtimes = _runtimes()
    extras = _extras()
    values = {
        "tersor": version("tersor"),
        "machine": asdict(machine) | {"usable_threads": usable_cores()},
        "runtimes": runtimes,
        "extras": {name: {"adds": adds, "missing": missing} for name, adds, missing in extras},
        "advice": _advice(machine),
    }
    lines = [
        f"tersor    {version('tersor')}, {', '.join(f'{k} {v}' for k, v in machine.versions.items())}",
        f"processor {machine.processor}: {', '.join(machine.features) or 'no known features'}",
        f"threads   {usable_cores()} usable of {machine.cores}, {machine.memory_bytes / 2**30:.1f} GiB memory",
        f"system    {machine.system}, load {machine.load:.1f}, governor {machine.governor or 'unknown'}",
        "",
        "runtimes",
        *columns([(f"  {name}", need or "ready") for name, need in runtimes.items()]),
        "",
        "extras",
        *columns([(f"  {name}", _state(name, missing), adds) for name, adds, missing in extras]),
        "",
        *_advice(machine),
    ]
    show(values, lines, json=json)
    return 0


def _state(name: str, missing: tuple[str, ...]) -> str:
    return f"pip install 'tersor[{name}]'" if missing else "installed"


#: Runtimes that compile the model with a C++ compiler.
_COMPILED = ("torch-compile", "aotinductor")


def _runtimes() -> dict[str, str]:
    """Return what each runtime lacks; empty for those that are ready."""
    from tersor.exporting.opening import RUNTIMES

    quick = {name: kind for name, kind in RUNTIMES.items() if name not in _COMPILED}
    return {name: kind.missing() for name, kind in quick.items()} | _compiler()


def _compiler() -> dict[str, str]:
    """Look for the compiler of torch.compile without importing torch, which takes seconds."""
    from shutil import which

    found = any(map(which, ("c++", "g++", "clang++")))
    missing = "" if found else "a C++ compiler (g++ or clang++), with which torch makes machine code"
    return dict.fromkeys(_COMPILED, missing)


def _extras() -> list[tuple[str, str, tuple[str, ...]]]:
    """Return every extra with what it adds and the packages that are missing for it."""
    needed: dict[str, list[str]] = {name: [] for name in metadata("tersor").get_all("Provides-Extra") or []}
    for requirement in requires("tersor") or []:
        extra, package = _EXTRA.search(requirement), _PACKAGE.match(requirement)
        if extra and package and package[0] != "tersor":
            needed[extra[1]].append(package[0])
    return [
        (name, _ADDS.get(name, ", ".join(packages)), tuple(p for p in packages if not _installed(p)))
        for name, packages in needed.items()
        if packages
    ]


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _advice(machine: "Machine") -> list[str]:
    """Return what to know before trusting a measurement here."""
    features = set(machine.features)
    lines = []
    if not any("vnni" in f or f.startswith("amx") or f in ("i8mm", "asimddp") for f in features):
        lines.append(
            "note: no integer dot product (VNNI, AMX, i8mm): 8-bit integers rarely make a model faster here."
        )
    if machine.governor not in ("", "performance"):
        lines.append(
            f"note: the governor is {machine.governor}; measurements are steadier with `performance`."
        )
    if machine.load > 0.5 * machine.cores:
        lines.append("note: the machine is busy; close other programs before you measure.")
    if machine.quota is not None:
        lines.append(f"note: a container limits this process to {machine.quota:g} processors' worth of time.")
    return lines or ["nothing stands in the way of a measurement"]
