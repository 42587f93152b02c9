"""tersor: the fastest or smallest model that still holds the accuracy you refuse to lose.

Names are imported on first use, so that `import tersor` and `tersor --help` stay quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from tersor._version import __version__ as __version__

if TYPE_CHECKING:
    from tersor.analysis.facts import Facts as Facts
    from tersor.analysis.facts import facts as facts
    from tersor.certification.certificate import Certificate as Certificate
    from tersor.certification.certify import Contender as Contender
    from tersor.certification.certify import certify as certify
    from tersor.certification.certify import certify_all as certify_all
    from tersor.certification.demand import Demand as Demand
    from tersor.certification.ledger import Ledger as Ledger
    from tersor.certification.planner import outlook as outlook
    from tersor.certification.seal import Seal as Seal
    from tersor.certification.store import save_certification as save_certification
    from tersor.certification.verify import verify as verify
    from tersor.cli.inspection.inspect import inspect as inspect
    from tersor.cli.trackers import open_tracker as open_tracker
    from tersor.exporting.export import export as export
    from tersor.exporting.export import open_artefact as open_artefact
    from tersor.exporting.keras_file import export_keras as export_keras
    from tersor.graph.groups import Group as Group
    from tersor.graph.prove import prove as prove
    from tersor.graph.structure import Graph as Graph
    from tersor.graph.table import groups as groups
    from tersor.graph.trace import trace as trace
    from tersor.loading.build import build_task as build_task
    from tersor.loading.model import load_model as load_model
    from tersor.loading.task import Task as Task
    from tersor.measurement.measure import compare as compare
    from tersor.measurement.measure import measure as measure
    from tersor.measurement.race import race as race
    from tersor.measurement.roofline import distance as distance
    from tersor.measurement.roofline import roofline as roofline
    from tersor.measurement.sweep import sweep as sweep
    from tersor.planning.plan import Cut as Cut
    from tersor.planning.plan import Drop as Drop
    from tersor.planning.plan import Factorize as Factorize
    from tersor.planning.plan import Mask as Mask
    from tersor.planning.plan import Plan as Plan
    from tersor.planning.plan import Quantize as Quantize
    from tersor.quantization.quantize import quantize as quantize
    from tersor.recovery.course import Course as Course
    from tersor.recovery.head import new_head as new_head
    from tersor.recovery.head import with_outputs as with_outputs
    from tersor.recovery.learn import Learned as Learned
    from tersor.recovery.recover import recover as recover
    from tersor.recovery.train import distill as distill
    from tersor.recovery.train import train as train
    from tersor.search.candidate import Candidate as Candidate
    from tersor.search.optimize import optimize as optimize
    from tersor.search.outcome import Outcome as Outcome
    from tersor.search.result import Result as Result
    from tersor.search.resume import resume as resume
    from tersor.search.verbs import factorize as factorize
    from tersor.search.verbs import prune as prune
    from tersor.surgery.apply import apply as apply
    from tersor.surgery.store import load as load
    from tersor.surgery.store import save as save

#: Module -> the public names that it defines.
_HOMES = {
    "tersor.search.optimize": ("optimize",),
    "tersor.search.resume": ("resume",),
    "tersor.search.verbs": ("prune", "factorize"),
    "tersor.search.candidate": ("Candidate",),
    "tersor.search.outcome": ("Outcome",),
    "tersor.search.result": ("Result",),
    "tersor.graph.trace": ("trace",),
    "tersor.graph.table": ("groups",),
    "tersor.graph.prove": ("prove",),
    "tersor.graph.structure": ("Graph",),
    "tersor.graph.groups": ("Group",),
    "tersor.loading.build": ("build_task",),
    "tersor.loading.model": ("load_model",),
    "tersor.loading.task": ("Task",),
    "tersor.analysis.facts": ("Facts", "facts"),
    "tersor.planning.plan": ("Plan", "Cut", "Quantize", "Factorize", "Drop", "Mask"),
    "tersor.surgery.apply": ("apply",),
    "tersor.surgery.store": ("save", "load"),
    "tersor.quantization.quantize": ("quantize",),
    "tersor.recovery.recover": ("recover",),
    "tersor.recovery.course": ("Course",),
    "tersor.recovery.learn": ("Learned",),
    "tersor.recovery.head": ("new_head", "with_outputs"),
    "tersor.recovery.train": ("train", "distill"),
    "tersor.exporting.export": ("export", "open_artefact"),
    "tersor.exporting.keras_file": ("export_keras",),
    "tersor.measurement.measure": ("measure", "compare"),
    "tersor.measurement.race": ("race",),
    "tersor.measurement.sweep": ("sweep",),
    "tersor.measurement.roofline": ("roofline", "distance"),
    "tersor.certification.certificate": ("Certificate",),
    "tersor.certification.certify": ("certify", "certify_all", "Contender"),
    "tersor.certification.demand": ("Demand",),
    "tersor.certification.planner": ("outlook",),
    "tersor.certification.seal": ("Seal",),
    "tersor.certification.ledger": ("Ledger",),
    "tersor.certification.store": ("save_certification",),
    "tersor.certification.verify": ("verify",),
    "tersor.cli.inspection.inspect": ("inspect",),
    "tersor.cli.trackers": ("open_tracker",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'tersor' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(["__version__", *_HOME])
