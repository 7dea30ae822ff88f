"""The task-relatedness bound of Mehra, Zhang and Hamm (NeurIPS 2024, arXiv 2307.00823), certified."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from lightning_transfer.relatedness.bound import certify, sampled_constant
from lightning_transfer.relatedness.estimate import bootstrap_error, probe, shrink, solve, solve_unlabelled
from lightning_transfer.relatedness.head import SoftmaxHead
from lightning_transfer.relatedness.problem import EvaluationData, Problem
from lightning_transfer.relatedness.result import Figures, TaskRelatednessResult
from lightning_transfer.relatedness.solvers import Learned, Settings
from lightning_transfer.relatedness.transforms import FeatureMapKind
from lightning_transfer.relatedness.transport import GroundCost
from lightning_transfer.utilities.checks import check_in_interval, check_one_of, check_positive_int

if TYPE_CHECKING:
    from lightning_transfer.relatedness.published import PublishedSchedule

_PRESETS: dict[str, Learned] = {
    "fixed_all": frozenset(),
    "learned_a": frozenset({"features"}),
    "learned_all": frozenset({"prior", "labels", "features"}),
}


@torch.inference_mode(mode=False)  # the solvers need gradients of their own, also in a validation loop
@torch.no_grad()
def task_relatedness(
    reference_features: Tensor,
    reference_labels: Tensor,
    target_features: Tensor,
    target_labels: Tensor | None = None,
    *,
    head: nn.Linear | SoftmaxHead | tuple[Tensor, Tensor] | None = None,
    tau: float | Literal["auto"] = "auto",
    ground_cost: GroundCost = "feature",
    transforms: str | Collection[str] = "learned_all",
    method: Literal["alternating", "published"] = "alternating",
    feature_map: FeatureMapKind = "affine",
    rank: int = 16,
    ridge: float | None = None,
    label_map: Tensor | Literal["matched", "random"] | None = None,
    standardize: bool = True,
    dimension: int | Literal["auto"] | None = "auto",
    num_target_classes: int | None = None,
    pseudo_labels: Literal["classifier", "kmeans"] = "classifier",
    evaluation: EvaluationData | None = None,
    warm_start: TaskRelatednessResult | None = None,
    rounds: int = 3,
    fit_samples: int = 400,
    max_samples: int = 1000,
    num_resamples: int = 0,
    level: float = 0.95,
    schedule: Literal["small", "large"] | PublishedSchedule = "small",
    reference_class_names: Sequence[str] | None = None,
    target_class_names: Sequence[str] | None = None,
    seed: int = 0,
) -> TaskRelatednessResult:
    r"""Bound the loss that a reference task guarantees on a target task; lower is better.

    For any class prior ``D``, label map ``B``, feature map ``G z + g`` and head ``h`` (Theorem 3 of the paper, with the
    feature map applied to the target)

    .. math:: E_T[-\log (B h(Gz+g))_y] \le \sum_j D_j L_j + H(Y''|Y') + \sum_k P_T(k) W_c(R''_k, T_k).

    The right-hand side is evaluated exactly on all given samples (or on ``evaluation``), so it is an upper bound of the
    loss of a concrete classifier on these samples, whatever the solver did. It says nothing certain of other samples.

    Args:
        reference_features: Shape ``(n_R, d)``, any floating dtype.
        reference_labels: Shape ``(n_R,)``, any integer dtype, gaps allowed.
        target_features: Shape ``(n_T, d)``, by the same backbone.
        target_labels: Shape ``(n_T,)``, or None to work with pseudo-labels; labels from elsewhere (a zero-shot model,
            say) are handed in here.
        head: Classifier of raw reference features, taken as it is: a linear layer, or weight ``(K_R, d)`` and bias
            ``(K_R,)``, with one row for each reference class in ascending order of ids. None trains one.
        tau: Lipschitz constant of the loss of the head in the working space: a number to train the head under that
            constraint, or ``"auto"`` for the head with the smallest bound. Then the answer is never above the entropy
            of the target prior, which guessing by that prior reaches. A head of the user's own keeps its constant
            under ``"auto"``; to meet a number it is scaled down.
        ground_cost: ``"feature"`` (tau times the distance, as published, but only in the directions in which the rows
            of the head differ: no other changes its loss), ``"logit_range"`` (never above it for the same transforms)
            or ``"logit_margin"`` (never above that one: counts only what can raise the loss).
        transforms: ``"fixed_all"``, ``"learned_a"`` (feature map), ``"learned_all"``, or a collection of ``"prior"``,
            ``"labels"`` and ``"features"``.
        method: ``"alternating"``, or ``"published"`` for the released algorithm.
        feature_map: ``"affine"``, ``"identity"``, ``"orthogonal"`` or ``"low_rank"``.
        rank: Rank of a low-rank map.
        ridge: Ridge of the feature map; None chooses it on a held-out quarter of the target.
        label_map: Label map where it is not learned: ``"matched"`` (default), ``"random"`` as in the paper, or ``B`` of
            shape ``(K_T, K_R)`` in ascending order of ids.
        standardize: Standardise each task by its own statistics, as published.
        dimension: Width of the working space, by principal components of both tasks; ``"auto"`` reduces more than 512
            features to 256 unless a head is given, None never reduces.
        num_target_classes: Number of target classes. With labels, all of them must have samples; without, the number of
            clusters (by default that of the reference classes).
        pseudo_labels: Where labels come from if there are none: ``"classifier"`` (predictions of the transformed
            classifier, refreshed while solving) or ``"kmeans"``.
        evaluation: Reference features, reference labels, target features and target labels to evaluate on instead. The
            class prior follows that target; under ``tau="auto"`` so does the size of the head, between guessing and all
            that was learned. Nothing else is learned there.
        warm_start: An earlier result for the same classes and width, whose transforms are the first iterate.
        rounds: Alternations between couplings and transforms.
        fit_samples: Reference samples of a class that the solver looks at; the certificate looks at all.
        max_samples: Largest number of samples on a side of one transport problem. Larger classes are coupled in blocks:
            still every sample counts, and no matrix over all samples is ever formed.
        num_resamples: Bootstrap resamples for a standard error and an interval of the bound; 0 for none.
        level: Nominal coverage of the interval.
        schedule: Schedule of the published method.
        reference_class_names: Names by class id.
        target_class_names: Names by class id.
        seed: Seed of the order of the samples, which systematic subsamples follow, and of all that is random.

    Returns:
        The bound with its terms, transforms, and how far to trust them.

    Raises:
        ValueError: If an input is malformed, widths differ, a target class has no samples, the head has another width,
            a deterministic label map is asked for with fewer reference than target classes, or the warm start does not
            fit.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional import task_relatedness
        >>> generator = torch.Generator().manual_seed(0)
        >>> labels = torch.arange(60) % 3
        >>> features = torch.eye(3)[labels] * 4 + torch.randn(60, 3, generator=generator)
        >>> result = task_relatedness(features, labels, features, labels, tau=0.5)
        >>> result.label_mismatch, round(result.distribution_mismatch, 6)
        (0.0, 0.0)
        >>> result.bound >= result.target_loss
        True
    """
    began = time.perf_counter()
    settings = _settings(tau, ground_cost, transforms, feature_map, rank, ridge, rounds, fit_samples, max_samples)
    check_one_of(method, ("alternating", "published"), "method")
    check_one_of(pseudo_labels, ("classifier", "kmeans"), "pseudo_labels")
    check_in_interval(level, 0, 1, "level")
    check_positive_int(num_resamples, "num_resamples", 0)
    problem = Problem.build(
        reference_features,
        reference_labels,
        target_features,
        target_labels,
        head=head,
        standardize=standardize,
        common_scale=tau == "auto" and head is None,
        dimension=dimension,
        num_target_classes=num_target_classes,
        seed=seed,
    )
    if problem.head is not None and settings.tau != "auto":
        problem.head = problem.head.limited(settings.tau)
    start = None
    if warm_start is not None:
        start = problem.start_from(warm_start)
        settings = replace(settings, ridge=warm_start.ridge if ridge is None else ridge)
    labels_used, published = "given", dict[str, float]()
    if method == "published":
        from lightning_transfer.relatedness.published import solve_published

        if target_labels is None:
            raise ValueError("Expected argument `target_labels` for `method='published'`, but got None.")
        solution, published = solve_published(problem, settings, label_map, schedule)
    elif target_labels is None:
        labels_used = "kmeans" if pseudo_labels == "kmeans" else "pseudo"
        solution = solve_unlabelled(problem, settings, label_map, start, pseudo_labels, num_target_classes)
    else:
        solution = solve(problem, settings, label_map, start)

    chosen, kind, certificate = solution.transforms, solution.kind, solution.certificate
    reference, target = problem.reference, problem.target
    if evaluation is not None:
        reference, target = problem.evaluation_samples(evaluation, solution.transforms)
        if settings.tau == "auto" and problem.head is None and method == "alternating":
            chosen, share = shrink(chosen, reference, target, settings)
            kind = kind if share else "constant head"
            if 0 < share < 1:
                problem.messages.append(f"{share:.0%} of the learned head are kept: least bound on the evaluation data")
        certificate = certify(chosen, reference, target, ground_cost, max_samples)
    error = bootstrap_error(chosen, reference, target, settings, num_resamples, seed)
    probe_loss, probe_accuracy = probe(problem.target.thinned(fit_samples), target, chosen.head.lipschitz_constant)
    if not certificate.coupling.converged:
        problem.messages.append(
            "a transport problem was not solved to optimality; its plan was made feasible, the bound is valid"
        )
    rows, columns = problem.target_ids.argsort(), problem.reference_ids.argsort()
    figures = Figures.of(certificate)
    return TaskRelatednessResult(
        figures=figures,
        fit_figures=Figures.of(solution.certificate),
        held_out_figures=None if solution.held_out is None else Figures.of(solution.held_out),
        evaluated_on="fit data" if evaluation is None else "evaluation data",
        tau=chosen.head.lipschitz_constant,
        tau_requested=tau,
        tau_certificate="largest distance between two rows of the weight of the head",
        tau_sampled=sampled_constant(chosen.head, chosen.label_map, chosen.feature_map(target.features), target.labels),
        ground_cost=ground_cost,
        method=method,
        learned=tuple(sorted(settings.learn)),
        feature_map_kind=feature_map if "features" in settings.learn else "identity",
        kind=kind,
        labels_used=labels_used,
        frame=problem.frame,
        head=SoftmaxHead(chosen.head.weight[columns], chosen.head.bias[columns]),
        feature_map=chosen.feature_map,
        label_map=chosen.label_map[rows][:, columns],
        conditional=chosen.conditional[rows][:, columns],
        class_prior=certificate.class_prior[columns],
        target_prior=certificate.target_prior[rows],
        reference_classes=problem.reference_ids[columns],
        target_classes=problem.target_ids[rows],
        probe_loss=probe_loss,
        probe_accuracy=probe_accuracy,
        ridge=solution.ridge,
        rounds=solution.rounds,
        converged=solution.converged and certificate.coupling.converged,
        history=solution.history,
        seconds=time.perf_counter() - began,
        messages=tuple(problem.messages),
        published=published,
        standard_error=error,
        interval=None if error is None else _interval(figures.bound, error, level),
        level=level,
    ).with_names(reference_class_names, target_class_names)


def _settings(
    tau: float | Literal["auto"],
    ground_cost: GroundCost,
    transforms: str | Collection[str],
    feature_map: FeatureMapKind,
    rank: int,
    ridge: float | None,
    rounds: int,
    fit_samples: int,
    max_samples: int,
) -> Settings:
    """Check what was asked for."""
    if isinstance(transforms, str):
        check_one_of(transforms, tuple(_PRESETS), "transforms")
        learn = _PRESETS[transforms]
    else:
        unknown = set(transforms) - _PRESETS["learned_all"]
        if unknown:
            raise ValueError(
                "Expected argument `transforms` to hold only 'prior', 'labels' and 'features', "
                f"but got {sorted(map(str, unknown))}."
            )
        learn = frozenset(transforms)  # type: ignore[arg-type]
    check_one_of(ground_cost, ("feature", "logit_range", "logit_margin"), "ground_cost")
    check_one_of(feature_map, ("identity", "orthogonal", "affine", "low_rank"), "feature_map")
    limit = torch.finfo(torch.float64).max
    return Settings(
        tau="auto" if tau == "auto" else check_in_interval(tau, 0, limit, "tau"),
        ground_cost=ground_cost,
        learn=learn,
        feature_map=feature_map,
        rank=check_positive_int(rank, "rank"),
        ridge=None if ridge is None else check_in_interval(ridge, 0, limit, "ridge"),
        rounds=check_positive_int(rounds, "rounds"),
        fit_samples=check_positive_int(fit_samples, "fit_samples", 2),
        max_samples=check_positive_int(max_samples, "max_samples", 2),
    )


def _interval(value: float, error: float, level: float) -> tuple[float, float]:
    from scipy.stats import norm

    half = float(norm.ppf(0.5 + level / 2)) * error
    return value - half, value + half
