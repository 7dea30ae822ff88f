"""The released algorithm: gradients, schedules, and what is certified in the end."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from _reference.relatedness import published_gradients
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_transfer.functional.task_relatedness import task_relatedness as cross_fitted
from lightning_transfer.published.task_relatedness import (
    PublishedParameters,
    published_objective,
    train_published_head,
)
from lightning_transfer.relatedness import PublishedSchedule, SoftmaxHead
from lightning_transfer.relatedness.bound import sampled_constant
from lightning_transfer.relatedness.sample import Sample

task_relatedness = partial(cross_fitted, folds=1)
UNKNOWNS = ("forward", "inverse", "offset", "label_logits", "prior_logits")
SHORT = replace(PublishedSchedule.small(), steps=60, head_epochs=30, batch=60)


def problem(seed=0, width=3, references=4, targets=3, n=9, m=7):
    rng = np.random.default_rng(seed)
    to = torch.from_numpy
    plan = rng.random((n, m))
    y, t = rng.integers(references, size=n), rng.integers(targets, size=m)
    parameters = PublishedParameters(
        forward=to(rng.normal(size=(width, width))),
        inverse=to(rng.normal(size=(width, width))),
        offset=to(rng.normal(size=width)),
        label_logits=to(rng.normal(size=(targets, references))),
        prior_logits=to(rng.normal(size=references)),
        fixed_label_map=torch.zeros(targets, references).double(),
        fixed_prior=torch.zeros(references).double(),
    )
    reference = Sample(to(rng.normal(size=(n, width))), to(y), references)
    target = Sample(to(rng.normal(size=(m, width))), to(t), targets)
    losses, prior = to(rng.random(references)), to(rng.dirichlet(np.ones(targets)))
    schedule = replace(SHORT, label_cost=1.7, distribution_weight=0.6, prior_weight=1.3, inverse_weight=0.4)
    return parameters, to(plan / plan.sum()), reference, target, losses, prior, schedule


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_gradients_by_finite_differences_and_in_closed_form(seed, width, references, targets):
    parameters, *rest = problem(seed, width, references, targets)
    plan, reference, target, losses, prior, schedule = rest
    for name in UNKNOWNS:
        getattr(parameters, name).requires_grad_()
    published_objective(parameters, *rest).backward()
    expected = published_gradients(
        *(getattr(parameters, name).detach().numpy() for name in UNKNOWNS), plan.numpy(),
        reference.features.numpy(), reference.labels.numpy(), target.features.numpy(), target.labels.numpy(),
        losses.numpy(), prior.numpy(), schedule.label_cost,
        (schedule.distribution_weight, schedule.prior_weight, schedule.inverse_weight),
    )  # fmt: skip
    step = 1e-6
    for name in UNKNOWNS:
        unknown = getattr(parameters, name)
        gradient = unknown.grad.numpy()
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-9, atol=1e-10)
        flat = unknown.detach().view(-1)
        for i in range(len(flat)):
            old = float(flat[i])
            values = []
            for shift in (step, -step):
                flat[i] = old + shift
                values.append(float(published_objective(parameters, *rest).detach()))
            flat[i] = old
            assert (values[0] - values[1]) / (2 * step) == pytest.approx(gradient.flat[i], rel=1e-5, abs=1e-6)


def test_objective_on_a_plan_that_moves_nothing():
    parameters, plan, reference, target, losses, prior, schedule = problem()
    parameters.forward = parameters.inverse = torch.eye(3).double()
    quiet = replace(schedule, distribution_weight=0.0, prior_weight=0.0)
    value = published_objective(parameters, plan, reference, target, losses, prior, quiet)
    label_map, prior_ = parameters.label_map, parameters.prior
    assert float(value) == pytest.approx(float(prior_ @ losses - (prior_ * label_map * label_map.log()).sum()))


@pytest.mark.parametrize("schedule", [PublishedSchedule.small(), PublishedSchedule.large()])
def test_schedules_are_those_released(schedule):
    small = schedule.joint_penalty
    assert (schedule.steps, schedule.batch) == ((1001, 500) if small else (2001, 2500))
    assert (schedule.distribution_weight, schedule.prior_weight, schedule.inverse_weight) == (2, 1, 1)
    assert (schedule.tau, schedule.label_cost) == ((0.2, 1e8) if small else (0.02, 1e6))
    assert schedule.num_head_steps(10_000) == (501 * 20 if small else 2001)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_penalised_head_learns_and_heeds_its_penalty(blobs, optimizer):
    z, y, _, _ = blobs()
    sample = Sample(z.double(), y, 3)
    schedule = replace(SHORT, head_optimizer=optimizer, head_steps=400, head_rate=0.05, head_batch=32, head_penalty=0.0)
    free = train_published_head(sample, 0.3, schedule, torch.Generator().manual_seed(0))
    held = train_published_head(sample, 0.3, replace(schedule, head_penalty=3.0), torch.Generator().manual_seed(0))
    assert float((free.logits(sample.features).argmax(1) == y).double().mean()) > 0.9
    assert held.lipschitz_constant < free.lipschitz_constant


def test_a_schedule_that_diverges_says_so(blobs):
    wild = replace(SHORT, head_optimizer="sgd", head_rate=10.0, head_penalty=1e6)
    with pytest.raises(RuntimeError, match="diverged"):
        task_relatedness(*blobs(), method="published", schedule=wild)


@pytest.mark.parametrize("transforms", ["learned_all", "learned_a", "fixed_all", {"labels"}, {"prior"}])
def test_published_answer_is_certified_and_its_own_figures_are_beside(blobs, transforms):
    z, y, x, t = blobs()
    result = task_relatedness(z, y, x, t, method="published", schedule=SHORT, transforms=transforms, tau=0.5)
    assert result.config.method == "published"
    loss = float(-result.log_probabilities(x).gather(1, t[:, None]).mean())
    assert result.target_loss == pytest.approx(loss)
    assert loss <= result.bound
    printed = result.published
    terms = ("re-weighted reference loss", "label mismatch", "distribution mismatch")
    assert printed["bound"] == pytest.approx(sum(printed[term] for term in terms))
    assert printed["tau (sampled)"] <= result.head.lipschitz_constant + 1e-9 or "pushes" in result.messages[-1]
    assert "published code: tau (sampled)" in str(result)
    again = task_relatedness(z, y, x, t, method="published", schedule=SHORT, transforms=transforms, tau=0.5)
    assert again.bound == result.bound


def test_published_answer_on_evaluation_data(blobs):
    z, y, x, t = blobs(n_reference=120, n_target=90)
    result = task_relatedness(
        z[:60], y[:60], x[:45], t[:45], method="published", schedule=SHORT, tau=0.5,
        evaluation=(z[60:], y[60:], x[45:], t[45:]),
    )  # fmt: skip
    assert result.target_loss <= result.bound
    loss = float(-result.log_probabilities(x[45:]).gather(1, t[45:, None]).mean())
    assert result.target_loss == pytest.approx(loss)


def test_sampled_constant_is_too_small():
    parameters, _, _, target, *_ = problem()
    weight = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    head = SoftmaxHead(weight, torch.zeros(4).double())
    sampled = sampled_constant(head, parameters.label_map, target.features, target.labels)
    assert 0 < sampled <= head.lipschitz_constant


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "tiny"}, "`schedule`"),
        ({"feature_map": "orthogonal"}, "feature_map='affine'"),
        ({"schedule": replace(SHORT, batch=2)}, "`batch` of at least 3"),
    ],
)
def test_bad_input(blobs, options, message):
    with pytest.raises(ValueError, match=message):
        task_relatedness(*blobs(), method="published", **{"schedule": SHORT, **options})


def test_what_the_published_method_can_not_do(blobs):
    with pytest.raises(ValueError, match="at least as many reference classes"):
        task_relatedness(*blobs(num_reference=2), method="published", schedule=SHORT)
    z, y, x, _ = blobs()
    with pytest.raises(ValueError, match="target_labels"):
        task_relatedness(z, y, x, method="published", schedule=SHORT)
