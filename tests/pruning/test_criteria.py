"""The checks that every criterion must pass, and each one against an independent reference in float64."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import tersor.pruning.criteria
from tersor.analysis.evidence import Evidence, Part
from tersor.errors import ArgumentError
from tersor.pruning.criteria.activation import Activation
from tersor.pruning.criteria.bn_scale import BnScale
from tersor.pruning.criteria.fisher import Fisher
from tersor.pruning.criteria.fpgm import Fpgm
from tersor.pruning.criteria.lamp import Lamp
from tersor.pruning.criteria.magnitude import Magnitude
from tersor.pruning.criteria.obs import Obs
from tersor.pruning.criteria.random import Random
from tersor.pruning.criteria.registry import CRITERIA, criterion, make_criterion
from tersor.pruning.criteria.taylor import Taylor

UNITS, WIDTH, OUTPUTS, SAMPLES = 6, 3, 4, 10
ALL = [
    *(make_criterion(name) for name in CRITERIA),
    Magnitude(p=1, combine="max"),
    Magnitude(combine="product"),
    Magnitude(combine="sum"),
    Fisher(diagonal=True),
]
BLIND = (Random, Fpgm)


def evidence(seed: int = 0, zero: int | None = None, dtype: torch.dtype = torch.float32) -> Evidence:
    """A group with a producer, a normalization and two consumers, consistent with itself."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        values = torch.randn(shape, generator=generator)
        if zero is not None:
            values[zero] = 0
        return values.to(dtype)

    parts = [Part("up.weight", 0, "writes", draw(UNITS, 5)), Part("norm.weight", 0, "scales", draw(UNITS, 1))]
    for name in ("left.weight", "right.weight"):
        weight, gradient = (
            draw(UNITS, WIDTH * OUTPUTS),
            torch.randn(SAMPLES, UNITS, WIDTH * OUTPUTS, generator=generator),
        )
        inputs = torch.randn(50, UNITS * WIDTH, generator=generator) @ torch.randn(
            UNITS * WIDTH, UNITS * WIDTH, generator=generator
        )
        gram = inputs.T @ inputs / len(inputs)
        products = weight.float() * gradient
        parts.append(
            Part(
                name,
                1,
                "reads",
                weight,
                WIDTH,
                saliency=products.sum(2),
                curvature=products.square().sum(2).mean(0),
                moment=gram.diagonal().reshape(UNITS, WIDTH),
                gram=gram,
            )
        )
    return Evidence("group", UNITS, tuple(parts), frozenset({"saliency", "curvature", "moment", "gram"}))


def permuted(found: Evidence, order: Tensor) -> Evidence:
    features = (order[:, None] * WIDTH + torch.arange(WIDTH)).flatten()
    parts = []
    for part in found.parts:
        parts.append(
            replace(
                part,
                weight=part.weight[order],
                saliency=None if part.saliency is None else part.saliency[:, order],
                curvature=None if part.curvature is None else part.curvature[order],
                moment=None if part.moment is None else part.moment[order],
                gram=None if part.gram is None else part.gram[features][:, features],
            )
        )
    return replace(found, parts=tuple(parts))


def gives_one_score_per_unit(criterion):
    assert criterion.score(evidence()).shape == (UNITS,)


def gives_finite_non_negative_scores(criterion):
    scores = criterion.score(evidence())
    assert torch.isfinite(scores).all()
    assert (scores >= 0).all()


def tells_units_apart(criterion):
    assert len(criterion.score(evidence()).unique()) > 1


def permuting_units_permutes_scores(criterion):
    if isinstance(criterion, Random):
        return
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(
        criterion.score(permuted(evidence(), order)), criterion.score(evidence())[order], rtol=1e-4, atol=1e-6
    )


def a_unit_of_zeros_scores_zero(criterion):
    if not isinstance(criterion, BLIND):
        assert criterion.score(evidence(zero=2))[2] < 1e-6


def does_not_change_the_evidence(criterion):
    found, again = evidence(), evidence()
    criterion.score(found)
    for before, after in zip(found.parts, again.parts, strict=True):
        for field in ("weight", "saliency", "curvature", "moment", "gram"):
            a, b = getattr(before, field), getattr(after, field)
            assert a is b is None or torch.equal(a, b)


def a_group_of_zeros_has_finite_scores(criterion):
    found = evidence()
    zeros = tuple(
        replace(part, **{k: torch.zeros_like(v) for k in ("weight", "saliency", "curvature", "moment", "gram")
                         if (v := getattr(part, k)) is not None})
        for part in found.parts
    )  # fmt: skip
    assert torch.isfinite(criterion.score(replace(found, parts=zeros))).all()


def declares_what_it_needs(criterion):
    bare = replace(evidence(), fields=frozenset())
    if criterion.needs:
        with pytest.raises(ArgumentError, match=r"collect\(.*" + next(iter(criterion.needs))):
            criterion.score(bare)
    else:
        criterion.score(bare)


def reads_nothing_that_it_does_not_declare(criterion):
    absent = (
        {"saliency", "curvature", "moment", "gram"}
        - criterion.needs
        - ({"moment"} if "gram" in criterion.needs else set())
    )
    found = evidence()
    parts = tuple(replace(part, **dict.fromkeys(absent)) for part in found.parts)
    torch.testing.assert_close(criterion.score(replace(found, parts=parts)), criterion.score(found))


def survives_its_own_repr(criterion):
    assert eval(repr(criterion), {type(criterion).__name__: type(criterion)}) == criterion


CHECKS = [
    gives_one_score_per_unit,
    gives_finite_non_negative_scores,
    tells_units_apart,
    permuting_units_permutes_scores,
    a_unit_of_zeros_scores_zero,
    does_not_change_the_evidence,
    a_group_of_zeros_has_finite_scores,
    declares_what_it_needs,
    reads_nothing_that_it_does_not_declare,
    survives_its_own_repr,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("criterion", ALL, ids=repr)
def test_criterion(criterion, check):
    check(criterion)


def test_magnitude_is_the_mean_of_member_norms_each_over_its_mean():
    found = evidence()
    expected = torch.zeros(UNITS, dtype=torch.float64)
    for part in found.parts:
        if part.role != "scales":
            norms = [sum(abs(float(w)) ** 2 for w in row) ** 0.5 for row in part.weight]
            expected += torch.tensor([norm * UNITS / sum(norms) for norm in norms]) / 3
    torch.testing.assert_close(Magnitude().score(found).double(), expected, rtol=1e-5, atol=0)


def test_taylor_sums_consumers_before_the_absolute_value_and_leaves_producers_out():
    left = Part("a", 1, "reads", torch.ones(1, 1), saliency=torch.tensor([[2.0]]))
    right = Part("b", 1, "reads", torch.ones(1, 1), saliency=torch.tensor([[-2.0]]))
    producer = Part("c", 0, "writes", torch.ones(1, 1), saliency=torch.tensor([[7.0]]))
    found = Evidence("g", 1, (producer, left, right), frozenset({"saliency"}))
    assert Taylor().score(found).item() == 0


def test_taylor_takes_the_absolute_value_of_each_sample():
    part = Part("a", 1, "reads", torch.ones(1, 1), saliency=torch.tensor([[2.0], [-2.0], [1.0], [-1.0]]))
    assert Taylor().score(Evidence("g", 1, (part,), frozenset({"saliency"}))).item() == 1.5


def test_fisher_is_the_quadratic_form_of_the_empirical_fisher():
    weight, gradients = torch.randn(3, dtype=torch.float64), torch.randn(20, 3, dtype=torch.float64)
    fisher = gradients.T @ gradients / 20
    part = Part("a", 1, "reads", weight[None], saliency=gradients @ weight[:, None],
                curvature=(weight.square() * fisher.diagonal()).sum()[None])  # fmt: skip
    found = Evidence("g", 1, (part,), frozenset({"saliency", "curvature"}))
    torch.testing.assert_close(Fisher().score(found)[0], weight @ fisher @ weight / 2)
    torch.testing.assert_close(
        Fisher(diagonal=True).score(found)[0], (weight**2 * fisher.diagonal()).sum() / 2
    )


def test_activation_is_the_output_energy_for_independent_features():
    part = evidence().of("reads")[0]
    found = Evidence("g", UNITS, (part,), frozenset({"moment"}))
    weight = part.weight.double().reshape(UNITS, WIDTH, OUTPUTS)
    energy = torch.stack(
        [sum(part.moment[u, j] * (weight[u, j] ** 2).sum() for j in range(WIDTH)) for u in range(UNITS)]
    )
    torch.testing.assert_close(Activation().score(found).double(), energy / energy.mean(), rtol=1e-5, atol=0)


def naive_removal(gram: Tensor, weight: Tensor, gone: list[int]) -> float:
    """Error of the best refit without some features, by solving the normal equations anew."""
    kept = [j for j in range(len(gram)) if j not in gone]
    refit = torch.zeros_like(weight)
    refit[kept] = torch.linalg.solve(gram[kept][:, kept], gram[kept] @ weight)
    return float(((weight - refit) * (gram @ (weight - refit))).sum())


def test_obs_follows_the_greedy_path_of_refitting_anew():
    part = evidence().of("reads")[0]
    scores = Obs(damping=0.01).score(Evidence("g", UNITS, (part,), frozenset({"gram"}))).double()
    gram = part.gram.double() + 0.01 * part.gram.double().diagonal().mean() * torch.eye(UNITS * WIDTH)
    weight = part.weight.double().reshape(UNITS * WIDTH, OUTPUTS)
    whole, gone, before, highest = float((weight * (gram @ weight)).sum()), [], 0.0, 0.0
    for _ in range(UNITS):
        errors = {
            u: naive_removal(gram, weight, [j for v in [*gone, u] for j in range(v * WIDTH, (v + 1) * WIDTH)])
            for u in range(UNITS)
            if u not in gone
        }
        unit = min(errors, key=errors.__getitem__)
        highest = max(highest, (errors[unit] - before) / whole)
        before = errors[unit]
        gone.append(unit)
        assert scores[unit].item() == pytest.approx(highest, rel=1e-4)
    assert scores.argsort().tolist() == gone or len(scores.unique()) < UNITS


def test_lamp_gives_one_to_the_highest_and_divides_by_what_is_left():
    squares = [4.0, 1.0, 9.0]
    part = Part("a", 0, "writes", torch.tensor([[value**0.5] for value in squares]))
    expected = [4 / 13, 1 / 14, 1.0]
    torch.testing.assert_close(Lamp().score(Evidence("g", 3, (part,))), torch.tensor(expected))


def test_fpgm_sums_distances():
    weight = evidence().parts[0].weight
    sums = torch.tensor([sum((a - b).norm().item() for b in weight) for a in weight])
    found = Evidence("g", UNITS, (evidence().parts[0],))
    torch.testing.assert_close(Fpgm().score(found), sums / sums.mean(), rtol=1e-4, atol=0)


def test_bn_scale_needs_a_normalization():
    with pytest.raises(ArgumentError, match="no normalization"):
        BnScale().score(Evidence("g", 2, (Part("a", 0, "writes", torch.ones(2, 2)),)))


@pytest.mark.parametrize("criterion", [Activation(), Obs()], ids=repr)
def test_units_that_only_products_of_activations_read_are_scored_by_both_factors(criterion):
    query = Part("q", 0, "writes", torch.tensor([[1.0], [2.0]]))
    key = Part("k", 0, "writes", torch.tensor([[3.0], [1.0]]))
    scores = criterion.score(Evidence("g", 2, (query, key), frozenset({"moment", "gram"})))
    torch.testing.assert_close(scores / scores.sum(), torch.tensor([9 / 13, 4 / 13]))


def test_effects_are_those_of_one_producer_where_nothing_reads_the_units():
    effect = torch.tensor([[2.0], [-4.0]])
    parts = tuple(
        Part(n, 0, "writes", torch.ones(1, 1), saliency=effect, curvature=torch.ones(1)) for n in "qk"
    )
    found = Evidence("g", 1, parts, frozenset({"saliency", "curvature"}))
    assert Taylor().score(found).item() == 3
    assert Fisher().score(found).item() == 5


def test_large_half_precision_weights_do_not_overflow():
    part = Part("a", 0, "writes", torch.full((2, 2048), 300.0, dtype=torch.float16).float())
    assert Magnitude().score(Evidence("g", 2, (part,))).tolist() == [1.0, 1.0]


def test_random_depends_on_seed_and_group_only():
    first = Random(seed=1).score(Evidence("a", 4, ()))
    assert torch.equal(first, Random(seed=1).score(Evidence("a", 4, ())))
    assert not torch.equal(first, Random(seed=2).score(Evidence("a", 4, ())))
    assert not torch.equal(first, Random(seed=1).score(Evidence("b", 4, ())))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Magnitude(p=0.5), "p >= 1"),
        (lambda: Magnitude(combine="meen"), "Did you mean 'mean'"),
        (lambda: Obs(damping=0), "positive"),
        (lambda: make_criterion("tailor"), "Did you mean 'taylor'"),
    ],
)
def test_bad_options_are_refused(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="already"):
        criterion("random")(Random)
    assert tersor.pruning.criteria.random.Random is CRITERIA["random"]
