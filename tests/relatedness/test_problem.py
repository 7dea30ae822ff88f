"""One comparison in its working space: warm starts, evaluation data, heads of one's own."""

import math

import pytest
import torch

from lightning_transfer.relatedness import BoundConfig, SoftmaxHead, TaskRelatednessResult
from lightning_transfer.relatedness.problem import Problem
from tests.relatedness._tasks import COSTS, make, task_relatedness


def test_evaluation_data_are_certified_and_the_fit_is_reported_beside():
    z, y, x, t = make(5, n_reference=120, n_target=90)
    fit = (z[:60], y[:60], x[:45], t[:45])
    for ground_cost in COSTS:
        result = task_relatedness(*fit, evaluation=(z[60:], y[60:], x[45:], t[45:]), ground_cost=ground_cost)
        loss = float(-result.log_probabilities(x[45:]).gather(1, t[45:, None]).mean())
        assert result.target_loss == pytest.approx(loss)
        assert loss <= result.bound + 1e-9
        assert result.bound < math.log(3) - 0.1
        assert result.evaluated_on == "evaluation data"
        assert result.certificate.num_target == 45
        assert result.fit.num_target == 45
        assert result.held_out == result.certificate


def test_evaluation_data_without_target_samples_are_refused():
    z, y, x, t = make(5)
    with pytest.raises(ValueError, match="`evaluation` to hold target samples, but got none"):
        task_relatedness(z, y, x, t, evaluation=(z, y, x[:0], t[:0]))


def test_evaluation_with_another_class_prior_keeps_the_row_sums():
    z, y, x, t = make(5, n_reference=120, n_target=90)
    some_rows = torch.cat([torch.arange(45, 90)[t[45:] != 1], torch.tensor([46])])
    result = task_relatedness(z, y, x[:45], t[:45], tau=0.5, evaluation=(z, y, x[some_rows], t[some_rows]))
    torch.testing.assert_close(result.joint.sum(1), result.target_prior, rtol=0, atol=1e-12)
    assert result.target_loss <= result.bound
    absent = t[45:] != 1
    result = task_relatedness(z, y, x[:45], t[:45], tau=0.5, evaluation=(z, y, x[45:][absent], t[45:][absent]))
    assert result.target_prior[1] == 0
    assert result.target_loss <= result.bound


def test_a_head_of_ones_own_is_taken_as_it_is():
    z, y, x, t = make(4)
    head = torch.nn.Linear(4, 3).requires_grad_(False)
    result = task_relatedness(z, y, x, t, head=head, standardize=False)
    torch.testing.assert_close(result.head.weight, head.weight.detach().double())
    assert result.tau == pytest.approx(float(torch.pdist(head.weight.detach().double()).max()), rel=1e-6)
    standard = task_relatedness(z, y, x, t, head=(head.weight, head.bias))
    losses = -head(z).log_softmax(1)[torch.arange(len(y)), y]
    expected = sum(share * losses[y == j].mean() for j, share in enumerate(standard.class_prior.tolist()))
    assert standard.reweighted_reference_loss == pytest.approx(float(expected), rel=1e-5)
    limited = task_relatedness(z, y, x, t, head=SoftmaxHead(head.weight.double(), head.bias.double()), tau=0.01)
    assert limited.tau == pytest.approx(0.01)


def test_warm_start_goes_on_where_the_last_solve_ended():
    z, y, x, t = make(7, noise=1.2)
    first = task_relatedness(z, y, x, t, ground_cost="logit_range", rounds=1)
    stored = TaskRelatednessResult.from_state({k: v.clone() for k, v in first.state_dict().items()})
    second = task_relatedness(z, y, x, t, ground_cost="logit_range", rounds=1, warm_start=stored)
    assert second.bound <= first.bound + 1e-9
    assert second.history[0] == pytest.approx(first.bound, abs=1e-9)
    for kind in ("classifier", "kmeans"):
        found = task_relatedness(z, y, x, tau=0.5, pseudo_labels=kind)
        again = task_relatedness(z, y, x, tau=0.5, pseudo_labels=kind, warm_start=found)
        assert again.bound <= found.bound + 0.05
    with pytest.raises(ValueError, match="warm_start"):
        task_relatedness(z[:, :3], y, x[:, :3], t, warm_start=first)
    with pytest.raises(ValueError, match="warm_start"):
        task_relatedness(z, y, x, t + 1, warm_start=first)


def build(z, y, x, t, **options):
    return Problem.build(z, y, x, t, head=None, config=BoundConfig(**options))


def test_classes_have_an_order_of_their_own_and_keep_their_ids():
    z, y, x, t = make(3)
    problem = build(z, 10 * y + 5, x, 7 - t)
    assert sorted(problem.reference_ids.tolist()) == [5, 15, 25]
    assert sorted(problem.target_ids.tolist()) == [5, 6, 7]
    assert problem.reference.features.shape == z.shape
    torch.testing.assert_close(problem.reference.features.mean(0), torch.zeros(4).double(), rtol=0, atol=1e-6)


def test_label_maps_of_ones_own_are_by_id_and_reordered():
    z, y, x, t = make(3, num_target=2)
    problem = build(z, y, x, t)
    given = torch.tensor([[0.2, 1.0, 0.5], [0.8, 0.0, 0.5]])
    working = problem.in_working_order(given)
    for row, target in enumerate(problem.target_ids.tolist()):
        for column, reference in enumerate(problem.reference_ids.tolist()):
            assert float(working[row, column]) == pytest.approx(float(given[target, reference]), abs=1e-7)
    for bad, message in (
        (given[:1], r"of shape \(2, 3\)"),
        (given.long(), "floating point"),
        (given - 0.3, "non-negative"),
        (torch.tensor([[1.0, 1, 1], [0, 0, 0]]), r"reach every target class, but got zeros for \[1\]"),
    ):
        with pytest.raises(ValueError, match=message):
            problem.in_working_order(bad)


def test_some_of_the_classes():
    problem = build(*make(3))
    kept = problem.reference_ids[[2, 0]]
    problem.keep_reference_classes(torch.tensor([2, 0]))
    assert torch.equal(problem.reference_ids, kept)
    assert problem.reference.num_classes == 2
    assert problem.messages == ["2 of 3 reference classes are used"]


@pytest.mark.parametrize(("change", "message"), [
    (lambda z, y, x, t: (z, y, x[:, :3], t), "to have the same width, but got 4 and 3"),
    (lambda z, y, x, t: (z, y[:-1], x, t), "reference"),
    (lambda z, y, x, t: (z * float("nan"), y, x, t), "finite|NaN"),
])  # fmt: skip
def test_sides_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        build(*change(*make(3)))
    with pytest.raises(ValueError, match=r"all 5 classes, but got none of \[3, 4\]"):
        build(*make(3), num_target_classes=5)
