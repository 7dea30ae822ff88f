"""The public function: properties of its answer, its options, and bad input."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_transfer.relatedness import TaskRelatednessResult
from tests.relatedness._tasks import COSTS, make, task_relatedness

some = settings(deadline=None, max_examples=10)


many = settings(deadline=None, max_examples=25)


def entropy(labels):
    p = torch.bincount(labels).double() / len(labels)
    return float(-torch.special.xlogy(p, p).sum())


@many
@given(
    st.integers(0, 1000),
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from(COSTS),
    st.sampled_from([0.3, 2, "auto"]),
)
def test_answer_is_certified_and_no_worse_than_doing_nothing(seed, num_reference, num_target, ground_cost, tau):
    data = make(seed, num_reference, num_target)
    options = {"tau": tau, "ground_cost": ground_cost, "rounds": 2}
    result = task_relatedness(*data, **options)
    identity = task_relatedness(*data, **options, feature_map="identity")
    log_p = result.log_probabilities(data[2])
    loss = float(-log_p.gather(1, data[3][:, None]).mean())
    assert result.target_loss == pytest.approx(loss, abs=1e-12)
    assert result.bound >= loss - 1e-9
    assert result.bound <= identity.bound + 1e-9
    terms = result.reweighted_reference_loss + result.label_mismatch + result.distribution_mismatch
    assert result.bound == pytest.approx(terms, abs=1e-9)
    torch.testing.assert_close(result.joint.sum(1), result.target_prior, rtol=0, atol=1e-12)
    torch.testing.assert_close(result.class_prior, result.joint.sum(0), rtol=0, atol=1e-12)
    torch.testing.assert_close(result.label_map.sum(0), torch.ones(len(result.reference_classes)).double())
    if tau == "auto":
        assert result.bound <= entropy(data[3]) + 1e-6
    else:
        assert result.tau <= tau + 1e-12
    assert 0 <= result.tau_sampled <= result.tau + 1e-12


@some
@given(st.integers(0, 1000), st.sampled_from(COSTS), st.booleans(), st.floats(-3, 3))
def test_scale_of_all_features_does_not_matter(seed, ground_cost, standardize, exponent):
    z, y, x, t = make(seed)
    options = {"ground_cost": ground_cost, "standardize": standardize, "rounds": 2}
    s = 10**exponent
    one = task_relatedness(z.double(), y, x.double(), t, **options)
    other = task_relatedness(s * z.double(), y, s * x.double(), t, **options)
    assert one.bound == pytest.approx(other.bound, abs=1e-6)


@some
@given(st.integers(0, 1000), st.sampled_from(COSTS), st.sampled_from([0.5, "auto"]))
def test_order_of_samples_and_ids_of_classes_do_not_matter(seed, ground_cost, tau):
    z, y, x, t = make(seed, num_reference=4)
    generator = torch.Generator().manual_seed(seed + 1)
    few = {"rounds": 2, "fit_samples": 8, "block_size": 5, "fit_target_samples": 5}
    options = {"ground_cost": ground_cost, "tau": tau, **few}
    one = task_relatedness(z, y, x, t, **options)
    rows, columns = torch.randperm(len(z), generator=generator), torch.randperm(len(x), generator=generator)
    names, others = torch.randperm(9, generator=generator)[:4], torch.randperm(9, generator=generator)[:3]
    other = task_relatedness(z[rows], names[y][rows], x[columns], others[t][columns], **options)
    assert one.bound == pytest.approx(other.bound, abs=1e-9)
    matched = dict(zip(one.target_classes.tolist(), one.conditional.argmax(1).tolist(), strict=True))
    again = dict(zip(other.target_classes.tolist(), other.conditional.argmax(1).tolist(), strict=True))
    for k, j in matched.items():
        same = other.reference_classes[again[int(others[k])]]
        assert int(same) == int(names[one.reference_classes[j]])


@many
@given(
    st.integers(0, 1000),
    st.sampled_from(COSTS),
    st.sampled_from(["learned_all", "fixed_all", "learned_a"]),
    st.sampled_from([0.5, "auto"]),
)
def test_identical_tasks_have_no_mismatch(seed, ground_cost, transforms, tau):
    z, y, _, _ = make(seed)
    result = task_relatedness(z, y, z, y, tau=tau, ground_cost=ground_cost, transforms=transforms)
    assert result.label_mismatch == 0
    assert result.distribution_mismatch == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("ground_cost", COSTS)
@pytest.mark.parametrize(
    "transforms", ["fixed_all", "learned_a", "learned_all", {"labels"}, {"prior"}, {"prior", "labels"}, {"features"}]
)
def test_every_set_of_transforms_is_certified(ground_cost, transforms):
    data = make(3, num_reference=4)
    result = task_relatedness(*data, tau=0.5, ground_cost=ground_cost, transforms=transforms)
    assert result.target_loss <= result.tighter_bound + 1e-9 <= result.bound + 2e-9
    if transforms == {"labels"}:
        torch.testing.assert_close(result.class_prior, torch.full((4,), 0.25).double(), rtol=0, atol=1e-9)
    if "features" not in result.learned:
        assert torch.equal(result.feature_map.matrix, torch.eye(4).double())


@pytest.mark.parametrize("kind", ["identity", "orthogonal", "affine", "low_rank"])
@pytest.mark.parametrize("ground_cost", COSTS)
def test_feature_maps_stay_in_their_family(kind, ground_cost):
    result = task_relatedness(*make(1, noise=1.0), tau=0.5, feature_map=kind, rank=2, ground_cost=ground_cost)
    matrix = result.feature_map.matrix
    if kind == "orthogonal":
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(4).double())
    if kind == "low_rank" and result.kind == "learned":
        assert torch.linalg.matrix_rank(matrix, rtol=1e-8) <= 2


@pytest.mark.parametrize("ground_cost", COSTS)
def test_shares_of_classes_are_those_of_all_target_samples_however_few_are_looked_at(ground_cost):
    z, y, x, _ = make(3, 3, 3, n_target=60, noise=30.0)  # nothing is better than guessing
    labels = torch.tensor([0] * 48 + [1] * 7 + [2] * 5)
    result = task_relatedness(z, y, x, labels, ground_cost=ground_cost, block_size=5, fit_target_samples=5, rounds=1)
    assert result.bound <= entropy(labels) + 1e-6


@pytest.mark.parametrize("ground_cost", COSTS)
def test_logits_that_overflow_leave_a_finite_bound(ground_cost):
    z, y, x, t = make(0, 4, 2, n_reference=20, n_target=4)
    for scale in (1e6, 1e12):
        result = task_relatedness(
            scale * z, y, scale * x, t, tau=1e4, ground_cost=ground_cost, standardize=False, transforms={"labels"}
        )
        assert result.target_loss - 1e-9 <= result.bound < math.inf
        assert 0 <= result.tau <= 1e4


def test_larger_families_of_maps_reach_lower_bounds():
    bounds = [
        task_relatedness(*make(1), tau=0.5, feature_map=kind).bound for kind in ("identity", "orthogonal", "affine")
    ]
    assert bounds[0] > bounds[1] > bounds[2]


@pytest.mark.parametrize("ground_cost", COSTS)
def test_on_other_data_nothing_is_chosen_by_their_labels(ground_cost):
    generator = torch.Generator().manual_seed(0)
    z, x = (torch.randn(n, 4, generator=generator) for n in (90, 120))
    y, t = torch.arange(90) % 3, torch.arange(120) % 3
    fit = z[:45], y[:45], x[:60], t[:60]
    straight = task_relatedness(*fit, evaluation=(z[45:], y[45:], x[60:], t[60:]), ground_cost=ground_cost)
    turned = task_relatedness(*fit, evaluation=(z[45:], y[45:], x[60:], (t[60:] + 1) % 3), ground_cost=ground_cost)
    for name in ("weight", "bias"):
        assert torch.equal(getattr(straight.head, name), getattr(turned.head, name))
    assert torch.equal(straight.feature_map.matrix, turned.feature_map.matrix)
    for result in (straight, turned):
        assert result.bound >= result.target_loss
        assert result.certificate.vacuous == (result.bound >= math.log(3))
    assert straight.certificate.vacuous
    assert "vacuous" in str(straight)


def test_state_survives_and_json_is_plain():
    result = task_relatedness(*make(0), num_resamples=4, target_class_names=("a", "b", "c"))
    state = result.state_dict()
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    assert TaskRelatednessResult.from_state(state).to_dict() == result.to_dict()
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["bound"] == result.bound
    assert plain["target_class_names"] == ["a", "b", "c"]
    with pytest.raises(ValueError, match="state"):
        TaskRelatednessResult.from_state({"meta": state["meta"]})


def test_wide_features_are_reduced():
    generator = torch.Generator().manual_seed(0)
    z, y, x, t = make(0)
    lift = torch.randn(4, 600, generator=generator)
    result = task_relatedness(z @ lift, y, x @ lift, t, tau=0.5, dimension=32)
    assert result.frame.basis.shape == (32, 600)
    assert result.target_loss <= result.bound
    full = task_relatedness(z, y, x, t, tau=0.5)
    assert task_relatedness(z, y, x, t, tau=0.5, dimension=4).bound == pytest.approx(full.bound, abs=0.2)


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_solves_where_gradients_are_off(guard):
    expected = task_relatedness(*make(0), ground_cost="logit_range")
    with guard():
        data = [part.clone() for part in make(0)]
        head = torch.nn.Linear(4, 3)
        result = task_relatedness(*data, ground_cost="logit_range", evaluation=tuple(data))
        assert task_relatedness(*data, head=head).target_loss > 0
        again = task_relatedness(*data, ground_cost="logit_range", warm_start=result)
    assert result.bound == pytest.approx(expected.bound, abs=1e-9)
    assert again.bound <= result.bound + 1e-9


def test_nothing_is_changed_behind_the_callers_back():
    data = make(0)
    copies = [part.clone() for part in data]
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    task_relatedness(*data)
    assert all(torch.equal(a, b) for a, b in zip(data, copies, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target_features": torch.zeros(36, 5)}, "the same width, but got 4 and 5"),
        ({"target_features": torch.full((36, 4), float("nan"))}, "`target_features` to be finite"),
        ({"reference_features": torch.zeros(48, 4, 2)}, r"`labels` to have shape \(48, 4\)"),
        ({"reference_labels": torch.zeros(47).long()}, "`reference_labels` to have 48 rows"),
        ({"target_labels": torch.zeros(36)}, "`target_labels` to be a 1D integer"),
        ({"target_labels": [0, 1, 2] * 12}, "`target_labels` .* got list"),
        ({"target_features": None}, "`target_features` .* got NoneType"),
        ({"reference_labels": None}, "`reference_labels` .* got NoneType"),
        ({"reference_features": torch.eye(48, 4).to_sparse()}, "`reference_features` .* a sparse tensor"),
        ({"num_target_classes": 5}, r"none of \[3, 4\]"),
        ({"head": torch.nn.Linear(4, 7)}, "`head` to map 4 features to 3 reference classes"),
        ({"head": torch.nn.Linear(5, 3)}, "`head` to map 4 features to 3 reference classes"),
        ({"head": "softmax"}, "`head` to be a linear layer"),
        ({"tau": -1.0}, "`tau`"),
        ({"tau": "small"}, "`tau`"),
        ({"ground_cost": "squared"}, "`ground_cost`"),
        ({"transforms": "learned"}, "`transforms`"),
        ({"transforms": {"maps"}}, "`transforms`"),
        ({"feature_map": "cubic"}, "`feature_map`"),
        ({"method": "other"}, "`method`"),
        ({"block_size": 1}, "`block_size`"),
        ({"transforms": "learned_a", "label_map": torch.eye(4)}, "`label_map`"),
        ({"transforms": "learned_a", "label_map": torch.full((3, 3), 0.5)}, "columns that sum to 1"),
        (
            {"transforms": ["prior"], "label_map": torch.tensor([[1.0, 1, 0], [0, 0, 0], [0, 0, 1]])},
            "reach every target",
        ),
        ({"label_map": "nonsense"}, "`label_map`"),
        ({"label_map": torch.eye(3)}, "`label_map` to be None"),
        ({"folds": 3}, "`folds`"),
        ({"confidence": 1}, "`confidence`"),
        ({"evaluation": (1, 2)}, "`evaluation`"),
        ({"evaluation": (torch.zeros(3, 4), torch.arange(3), torch.zeros(1, 4), torch.tensor([7]))}, "target classes"),
        (
            {"evaluation": (torch.zeros(1, 4), torch.tensor([0]), torch.zeros(1, 4), torch.tensor([0]))},
            "every reference",
        ),
        ({"evaluation": (torch.zeros(1, 5), torch.tensor([0]), torch.zeros(1, 5), torch.tensor([0]))}, "width 4"),
    ],
)
def test_bad_input(change, message):
    arguments = dict(
        zip(("reference_features", "reference_labels", "target_features", "target_labels"), make(0), strict=True)
    )
    with pytest.raises(ValueError, match=message):
        task_relatedness(**{**arguments, **change})
