"""The task-relatedness bound of Mehra, Zhang and Hamm (NeurIPS 2024, arXiv 2307.00823), certified."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_transfer.relatedness.bound import certify, sampled_constant
from lightning_transfer.relatedness.config import BoundConfig
from lightning_transfer.relatedness.estimate import bootstrap_error, probe, shrink, solve, solve_unlabelled
from lightning_transfer.relatedness.head import SoftmaxHead
from lightning_transfer.relatedness.problem import EvaluationData, Problem
from lightning_transfer.relatedness.result import TaskRelatednessResult


@torch.inference_mode(mode=False)  # the solvers need gradients of their own, also in a validation loop
@torch.no_grad()
def task_relatedness(
    reference_features: Tensor,
    reference_labels: Tensor,
    target_features: Tensor,
    target_labels: Tensor | None = None,
    *,
    config: BoundConfig | None = None,
    head: nn.Linear | SoftmaxHead | tuple[Tensor, Tensor] | None = None,
    label_map: Tensor | Literal["matched", "random"] | None = None,
    evaluation: EvaluationData | None = None,
    warm_start: TaskRelatednessResult | None = None,
    reference_class_names: Sequence[str] | None = None,
    target_class_names: Sequence[str] | None = None,
    **options: Any,
) -> TaskRelatednessResult:
    r"""Bound the loss that a reference task guarantees on a target task; lower is better.

    For any class prior ``D``, label map ``B``, feature map ``G z + g`` and head ``h`` (Theorem 3 of the paper, with the
    feature map applied to the target)

    .. math:: E_T[-\log (B h(Gz+g))_y] \le \sum_j D_j L_j + H(Y''|Y') + \sum_k P_T(k) W_c(R''_k, T_k).

    The right-hand side is evaluated exactly on all given samples (or on ``evaluation``), so it is an upper bound of the
    loss of a concrete classifier on these samples, whatever the solver did. It says nothing certain of other samples.

    Args:
        reference_features: Shape ``(n_R, d)`` (tokens ``(b, t, d)`` and pixels ``(b, d, h, w)`` too), any floating
            dtype.
        reference_labels: Shape ``(n_R,)`` (``(b, t)``, ``(b, h, w)``), any integer dtype, gaps allowed.
        target_features: Shape ``(n_T, d)`` or likewise, by the same backbone.
        target_labels: Shape ``(n_T,)`` or likewise, or None to work with pseudo-labels; labels from elsewhere (a
            zero-shot model, say) are handed in here.
        config: How to bound; None for the defaults.
        head: Classifier of raw reference features, taken as it is: a linear layer, or weight ``(K_R, d)`` and bias
            ``(K_R,)``, with one row for each reference class in ascending order of ids. None trains one.
        label_map: Label map where it is not learned: ``"matched"`` (default), ``"random"`` as in the paper, or ``B`` of
            shape ``(K_T, K_R)`` in ascending order of ids.
        evaluation: Reference features, reference labels, target features and target labels to evaluate on instead. The
            class prior follows that target; under ``tau="auto"`` so does the size of the head, between guessing and all
            that was learned. Nothing else is learned there.
        warm_start: An earlier result for the same classes and width, whose transforms are the first iterate.
        reference_class_names: Names by class id.
        target_class_names: Names by class id.
        options: Fields of :class:`~lightning_transfer.relatedness.BoundConfig`, on top of ``config``.

    Returns:
        The bound with its terms, transforms, and how far to trust them.

    Raises:
        ValueError: If an option is unknown or impossible, an input is malformed, widths differ, a target class has no
            samples, the head has another width, a deterministic label map is asked for with fewer reference than target
            classes, or the warm start does not fit.

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
    config = BoundConfig.of(config, options)
    problem = Problem.build(
        reference_features,
        reference_labels,
        target_features,
        target_labels,
        head=head,
        config=config,
    )
    if problem.head is not None and config.tau != "auto":
        problem.head = problem.head.limited(config.tau)
    start, request = None, config
    if warm_start is not None:
        start = problem.start_from(warm_start)
        config = replace(config, ridge=warm_start.ridge if config.ridge is None else config.ridge)
    labels_used, published = "given", dict[str, float]()
    if config.method == "published":
        from lightning_transfer.published.task_relatedness import solve_published

        if target_labels is None:
            raise ValueError("Expected argument `target_labels` for `method='published'`, but got None.")
        solution, published = solve_published(problem, config, label_map)
    elif target_labels is None:
        labels_used = "kmeans" if config.pseudo_labels == "kmeans" else "pseudo"
        solution = solve_unlabelled(problem, config, label_map, start)
    else:
        solution = solve(problem, config, label_map, start)

    chosen, kind, certificate = solution.transforms, solution.kind, solution.certificate
    reference, target = problem.reference, problem.target
    if evaluation is not None:
        reference, target = problem.evaluation_samples(evaluation, solution.transforms)
        if config.tau == "auto" and problem.head is None and config.method == "alternating":
            chosen, share = shrink(chosen, reference, target, config)
            kind = kind if share else "constant head"
            if 0 < share < 1:
                problem.messages.append(f"{share:.0%} of the learned head are kept: least bound on the evaluation data")
        certificate = certify(chosen, reference, target, config.ground_cost, config.block_size)
    error = bootstrap_error(chosen, reference, target, config)
    probe_loss, probe_accuracy = probe(
        problem.target.thinned(config.fit_samples), target, chosen.head.lipschitz_constant
    )  # fmt: skip
    if not certificate.optimal:
        problem.messages.append(
            "a transport problem was not solved to optimality; its plan was made feasible, the bound is valid"
        )
    rows, columns = problem.target_ids.argsort(), problem.reference_ids.argsort()
    return TaskRelatednessResult(
        certificate=certificate,
        fit=solution.certificate,
        evaluated_on="fit data" if evaluation is None else "evaluation data",
        config=request,
        tau=chosen.head.lipschitz_constant,
        tau_sampled=sampled_constant(chosen.head, chosen.label_map, chosen.feature_map(target.features), target.labels),
        kind=kind,
        labels_used=labels_used,
        frame=problem.frame,
        head=SoftmaxHead(chosen.head.weight[columns], chosen.head.bias[columns]),
        feature_map=chosen.feature_map,
        label_map=chosen.label_map[rows][:, columns],
        conditional=chosen.conditional[rows][:, columns],
        target_prior=target.prior[rows],
        reference_classes=problem.reference_ids[columns],
        target_classes=problem.target_ids[rows],
        probe_loss=probe_loss,
        probe_accuracy=probe_accuracy,
        ridge=solution.ridge,
        rounds=solution.rounds,
        converged=solution.converged and certificate.optimal,
        history=solution.history,
        seconds=time.perf_counter() - began,
        messages=tuple(problem.messages),
        published=published,
        standard_error=error,
        interval=None if error is None else _interval(certificate.bound, error, config.level),
    ).with_names(reference_class_names, target_class_names)


def _interval(value: float, error: float, level: float) -> tuple[float, float]:
    from scipy.stats import norm

    half = float(norm.ppf(0.5 + level / 2)) * error
    return value - half, value + half
