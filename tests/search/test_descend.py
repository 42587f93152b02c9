"""What a descent leaves out where time is short."""

import pickle
import time
from math import inf
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tersor.loading.build import build_task
from tersor.planning.plan import Factorize, Plan
from tersor.search import descend as descend_module
from tersor.search import propose as propose_module
from tersor.search.candidate import Candidate
from tersor.search.captures import Captures
from tersor.search.descend import _without_free_steps
from tersor.search.effort import BOLD, FINE, MILD, Effort
from tersor.search.executors import Local
from tersor.search.ladder import Ladder
from tersor.search.limits import Limits
from tersor.search.origin import first_twins
from tersor.search.prices import Prices
from tersor.search.propose import Exhausted, Lessons
from tersor.search.shrink import LONG, restore

MARGIN, NONE = 0.02, Limits()


def run(left_s, goal="latency", limits=NONE, drawn=""):
    return SimpleNamespace(
        base=SimpleNamespace(name="original"),
        clock=SimpleNamespace(left_s=left_s, budget_s=left_s),
        request=SimpleNamespace(goal=goal, limits=limits, methods=("prune", "distill"), max_memory=inf),
        task=SimpleNamespace(drawn=drawn, train=range(100)),
        executor=Local(),
        margin=MARGIN,
        say=lambda *words: None,
    )


@pytest.mark.parametrize(
    ("asked", "tried"),
    [
        (run(0.2), 2),
        (run(60.0), 4),
        (run(inf), 4),
        (run(0.2, goal="size"), 4),
        (run(0.2, limits=Limits(size=1e6)), 4),
        (run(0.2, drawn="random"), 4),
    ],
    ids=["short", "long", "endless", "for size", "with a limit", "without data"],
)
def test_weights_alone_are_rounded_where_that_is_quick_or_bytes_count(asked, tried):
    def rounded(parent, schemes):
        time.sleep(0.02 * len(schemes))
        return dict.fromkeys(schemes, parent)

    twins = SimpleNamespace(schemes=("dynamic", "static", "int8", "int4"), rounded=rounded)
    assert tuple(first_twins(asked, twins)) == twins.schemes[:tried]


def ladder_after(monkeypatch, shares, lost):
    """The ladder where untrained networks lose so much at each share; a fault where nothing is said of it."""
    monkeypatch.setattr(descend_module, "glimpse", lambda run, known, lessons, precisions, share: lost[share])
    known = SimpleNamespace(space=None)
    lessons = Lessons(Prices("latency"), effort=Effort(shares, 1.0, 1.0), surveyed=("original", known))
    searched = run(60.0)
    ladder = Ladder(shares, parent=searched.base, open_end=True)
    return _without_free_steps(searched, ladder, lessons, ("float",))


def test_first_steps_that_hold_before_training_are_skipped(monkeypatch):
    ladder = ladder_after(monkeypatch, MILD, {0.7: 0.0, 0.5: 1.1 * MARGIN})
    assert (ladder.held, ladder.shares) == (0.7, (0.5, 0.4))
    missed = ladder.after(SimpleNamespace(model=None), -1.0, counted=False)
    assert missed.next_share() == pytest.approx(0.592)
    assert ladder_after(monkeypatch, MILD, dict.fromkeys(MILD, 0.0)).shares == (0.4,)


@pytest.mark.parametrize("lost", [{0.7: 1.1 * MARGIN}, {}], ids=["that misses", "that cannot be looked at"])
def test_a_first_step_is_made(monkeypatch, lost):
    ladder = ladder_after(monkeypatch, MILD, lost)
    assert (ladder.held, ladder.shares) == (1.0, MILD)


def test_the_only_step_is_made_even_where_it_would_hold_untrained(monkeypatch):
    assert ladder_after(monkeypatch, BOLD, dict.fromkeys(BOLD, 0.0)).shares == BOLD


def test_with_time_for_small_steps_none_is_skipped(monkeypatch):
    assert ladder_after(monkeypatch, FINE, dict.fromkeys(FINE, 0.0)).shares == FINE


def test_a_network_is_captured_once_and_again_after_a_journey():
    torch.manual_seed(0)
    first, second, x = nn.Linear(4, 3).eval(), nn.Linear(4, 3).eval(), (torch.randn(2, 4),)
    captures = Captures()
    graph = captures.of(first, x)
    assert captures.of(first, x) is graph
    assert captures.of(second, x) is not graph
    assert pickle.loads(pickle.dumps(captures)).last is None


@pytest.mark.parametrize(
    ("inputs", "epochs", "mixed"),
    [
        (torch.rand(256, 8), LONG, True),
        (torch.rand(256, 8), LONG - 1, False),
        (torch.randperm(2048).view(256, 8), LONG, False),
    ],
    ids=["long", "short", "words"],
)
def test_long_recoveries_show_mixtures_of_samples_and_trust_their_labels_less(
    monkeypatch, inputs, epochs, mixed
):
    class Sum(nn.Linear):
        def forward(self, x):
            return super().forward(x.float())

    labels = torch.arange(len(inputs)) % 2
    task = build_task(Sum(8, 2), (inputs, labels)).task
    seen = {}

    def recover(student, teacher, split, *, epochs, loss, ladder):
        seen.update(between=ladder.between, loss=loss)
        return SimpleNamespace(model=student, losses=())

    monkeypatch.setattr("tersor.search.shrink.recover", recover)
    monkeypatch.setattr("tersor.search.shrink._LABELLED_STEPS", 1)
    request = SimpleNamespace(seed=0, listen=lambda event: None, methods=("prune", "distill"))
    restore(SimpleNamespace(task=task, request=request), task.model, epochs, "cut")
    assert seen["between"] is mixed
    assert (seen["loss"].alpha < 0.5) is mixed


@pytest.mark.parametrize(("edits", "begins"), [((Factorize("fc1", 4),), "original"), ((), None)])
def test_a_step_starts_anew_where_factorized_layers_leave_nothing_to_take(monkeypatch, edits, begins):
    origin, parent = Candidate("original", Plan()), Candidate("joint 80%", Plan(edits))
    spaces = {candidate.name: SimpleNamespace(space=candidate.name) for candidate in (origin, parent)}
    monkeypatch.setattr(propose_module, "survey", lambda run, candidate, samples: spaces[candidate.name])
    lessons = Lessons(Prices("latency"))

    def propose(run, known, *_):
        if known.space == "joint 80%":
            raise Exhausted("nothing left")
        return ("design",)

    monkeypatch.setattr(descend_module, "propose", propose)
    asked = SimpleNamespace(base=origin, say=lambda *_: None)
    if begins is None:
        with pytest.raises(Exhausted):
            descend_module._proposed(asked, parent, lessons, ("float",), 0.08)
        return
    start, known, proposals = descend_module._proposed(asked, parent, lessons, ("float",), 0.08)
    assert (start.name, known.space, proposals) == (begins, begins, ("design",))
    assert lessons.whole == begins
