"""The task-relatedness bound of Mehra, Zhang and Hamm (NeurIPS 2024, arXiv 2307.00823), certified."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_transfer.relatedness.baseline import Baseline
from lightning_transfer.relatedness.bound import certify, look, sampled_constant
from lightning_transfer.relatedness.config import BoundConfig
from lightning_transfer.relatedness.crossfit import Data, combine, folds
from lightning_transfer.relatedness.estimate import (
    LabelMap,
    bootstrap_error,
    check_label_map,
    probe,
    reference_loss,
    solve,
    solve_unlabelled,
)
from lightning_transfer.relatedness.head import SoftmaxHead
from lightning_transfer.relatedness.population import SMOOTHING, mean_bound, smoothed
from lightning_transfer.relatedness.problem import (
    EvaluationData,
    GroupedEvaluationData,
    Groups,
    Problem,
    check_classes,
    one_row_each,
)
from lightning_transfer.relatedness.result import TaskRelatednessResult
from lightning_transfer.utilities.checks import check_features, check_labels, flatten_positions, shape_of_positions
from lightning_transfer.utilities.groups import check_groups, number_groups, rows_of_groups

_FEWEST = 8  # samples a side that can be cut in halves
_SIDES = ("reference", "target")


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
    evaluation: EvaluationData | GroupedEvaluationData | None = None,
    warm_start: TaskRelatednessResult | None = None,
    reference_class_names: Sequence[str] | None = None,
    target_class_names: Sequence[str] | None = None,
    reference_groups: Tensor | None = None,
    target_groups: Tensor | None = None,
    **options: Any,
) -> TaskRelatednessResult:
    r"""Bound the loss that a reference task guarantees on a target task; lower is better.

    For any class prior ``D``, label map ``B``, feature map ``G z + g`` and head ``h`` (Theorem 3 of the paper, with the
    feature map applied to the target)

    .. math:: E_T[-\log (B h(Gz+g))_y] \le \sum_j D_j L_j + H(Y''|Y') + \sum_k P_T(k) W_c(R''_k, T_k).

    The transforms are learned on one half of both sides and the right-hand side is evaluated exactly on the other, both
    ways, so the answer is an upper bound of the loss of concrete classifiers on samples that they have not seen,
    whatever the solver did; with ``folds=1`` both are done on all samples. Of the population it says nothing certain:
    ``confidence`` adds a statement about that. No bound of this family is below the loss of the head on the reference
    or that of the transformed classifier on the target.

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
        evaluation: Reference features, reference labels, target features and target labels to evaluate on instead of
            halves, and after them, where samples come in groups, the groups of that reference and of that target (or
            None). The rows of ``M`` are weighted by the class shares of that target; nothing is learned there.
        warm_start: An earlier result for the same classes and width, whose transforms are the first iterate (of halves:
            those of its halves, if it has some).
        reference_class_names: Names by class id.
        target_class_names: Names by class id.
        reference_groups: Ids of reference samples that belong together (of a patient, of a document), shape ``(n_R,)``
            like the samples, any integer dtype. Halves, the parts that a head is chosen on, and resamples of the
            standard error divide no group. None: all samples are independent.
        target_groups: The same for the target. With ``confidence`` a group is one draw: the population bound is then
            one of the loss of a random sample of a new group.
        options: Fields of :class:`~lightning_transfer.relatedness.BoundConfig`, on top of ``config``.

    Returns:
        The bound with its terms, transforms, and how far to trust them.

    Raises:
        ValueError: If an option is unknown or impossible, an input is malformed, widths differ, a target class has no
            samples, the head has another width, a deterministic label map is asked for with fewer reference than target
            classes, the warm start does not fit, groups are malformed or leave nothing to hold out, or a statement on
            the population is asked for where too few groups, or none of an ``evaluation``, are known.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional import task_relatedness
        >>> generator = torch.Generator().manual_seed(0)
        >>> labels = torch.arange(60) % 3
        >>> features = torch.eye(3)[labels] * 4 + torch.randn(60, 3, generator=generator)
        >>> result = task_relatedness(features, labels, features, labels, tau=0.5, folds=1)
        >>> result.label_mismatch, round(result.distribution_mismatch, 6)
        (0.0, 0.0)
        >>> result.bound >= result.target_loss
        True
    """
    began = time.perf_counter()
    config = BoundConfig.of(config, options)
    check_given(config, head=head, label_map=label_map, evaluation=evaluation, warm_start=warm_start)
    groups = (
        _check_groups(reference_groups, reference_features, "reference_groups"),
        _check_groups(target_groups, target_features, "target_groups"),
    )
    evaluation_groups: Groups = (None, None)
    if evaluation is not None:
        evaluation, evaluation_groups = _groups_of_evaluation(evaluation, groups, config)
    reference_features, reference_labels = flatten_positions(reference_features, reference_labels)
    target_features, labels_or_zeros, unlabelled = one_row_each(target_features, target_labels, "target_features")
    sides = (reference_features, reference_labels), (target_features, labels_or_zeros)
    for side, (features, labels) in zip(_SIDES, sides, strict=True):  # values are looked at where they are used
        check_features(features, f"{side}_features", read=False)
        check_labels(labels, len(features), name=f"{side}_labels", read=False)
    data = reference_features, reference_labels, target_features, None if unlabelled else labels_or_zeros
    built: dict[int | None, Problem] | None = {} if config.baselines else None
    given: dict[str, Any] = {"head": head, "label_map": label_map, "groups": groups, "built": built}
    given |= {"evaluation": evaluation, "evaluation_groups": evaluation_groups}
    result = _answer(data, config, start=warm_start, **given)
    if config.baselines:
        alike = replace(config, feature_map=config.baseline_map, method="alternating", baselines=0, num_resamples=0)
        alike = replace(alike, confidence=None)
        if head is not None:  # copies need heads of their own, so the reference gets one of that kind
            given["built"] = {}
        given |= {"head": None, "brief": True}
        seeds = (None, *(config.seed + 1 + i for i in range(config.baselines)))
        bounds = [_answer(data, alike, turn=seed, **given).bound for seed in seeds]
        result = replace(result, baseline=Baseline(bounds[0], tuple(bounds[1:]), config.baseline_map))
    result = replace(result, config=config, seconds=time.perf_counter() - began)
    return result.with_names(reference_class_names, target_class_names)


def check_given(
    config: BoundConfig,
    *,
    head: object = None,
    label_map: Any = None,
    evaluation: object = None,
    warm_start: object = None,
    **_: object,
) -> None:
    """Check the kinds of what :func:`task_relatedness` is handed beside the features and the options.

    Raises:
        ValueError: If something is of another kind than it takes, or a label map would be ignored.
    """
    check_label_map(config, label_map)
    if head is not None:
        SoftmaxHead.parts_of(head)
    if evaluation is not None and not (isinstance(evaluation, tuple) and len(evaluation) in (4, 6)):
        raise ValueError(
            "Expected argument `evaluation` to be a tuple of four tensors (the last may be None), or of these and the "
            "groups of either side."
        )
    if warm_start is not None and not isinstance(warm_start, TaskRelatednessResult):
        raise ValueError(
            f"Expected argument `warm_start` to be a `TaskRelatednessResult`, but got {type(warm_start).__name__}."
        )


def _check_groups(groups: Tensor | None, features: Tensor, name: str, several: bool = True) -> Tensor | None:
    """One id a sample or position, on at least two groups where there have to be several."""
    if groups is None or not isinstance(features, Tensor) or not features.ndim:
        return None
    ids = check_groups(groups, shape_of_positions(features), name=name)
    if several:
        number_groups(ids, name)
    return ids


def _groups_of_evaluation(
    evaluation: EvaluationData | GroupedEvaluationData, groups: Groups, config: BoundConfig
) -> tuple[EvaluationData, Groups]:
    """Evaluation data, and the groups of both sides where they are there; they must be where they are needed.

    Raises:
        ValueError: If groups are malformed, or there are none where resamples or the population would need them.
    """
    z, y, x, t = evaluation[:4]
    rest = evaluation[4:] or (None, None)
    found: list[Tensor | None] = []
    for side, learned, ids, features in zip(_SIDES, groups, rest, (z, x), strict=True):
        needed = config.num_resamples > 0 or (config.confidence is not None and side == "target")
        if learned is not None and ids is None and needed:
            raise ValueError(
                f"Expected argument `evaluation` to hold the groups of its samples after them for `confidence` and "
                f"`num_resamples`, where `{side}_groups` are given, but got none of the {side}."
            )
        found.append(_check_groups(ids, features, f"evaluation {side}_groups", needed))
    return (z, y, x, t), (found[0], found[1])


def _answer(
    data: Data,
    config: BoundConfig,
    *,
    evaluation: EvaluationData | None = None,
    evaluation_groups: Groups = (None, None),
    start: TaskRelatednessResult | None = None,
    groups: Groups = (None, None),
    **given: Any,
) -> TaskRelatednessResult:
    """Learn and evaluate on halves, or on what was asked for."""
    few = min(len(data[0]), len(data[2])) < _FEWEST
    if data[3] is not None and len(data[3]):  # of classes of one sample nothing can be held out
        few = few or int(data[3].unique(return_counts=True)[1].max()) < 2
    if evaluation is not None or config.folds == 1 or few:
        whole: dict[str, Any] = {"evaluation": evaluation, "evaluation_groups": evaluation_groups}
        result = _solve(data, config, start=start, groups=groups, **whole, **given)
        for side, learned, held_out in zip(_SIDES, groups, evaluation_groups, strict=True):
            if learned is not None and held_out is not None:
                both = int(torch.isin(held_out.unique(), learned.to(held_out.device)).sum())
                note = f"{both} groups of the {side} have samples among those learned from and those evaluated on"
                result = replace(result, messages=(*result.messages, *([note] if both else [])))
        if config.folds > 1 and few and evaluation is None:
            result = replace(result, messages=(*result.messages, "too few samples to hold some of them out"))
        if config.confidence is not None and evaluation is None:
            result = replace(result, messages=(*result.messages, "no statement about new samples: none are held out"))
        return result
    check_classes(data[3], config.num_target_classes)
    num_classes = None
    if data[3] is None:  # halves may have different numbers of reference classes
        num_classes = config.num_target_classes or len(data[1].unique())
    share = None if config.confidence is None else (1 + config.confidence) / 2
    half = replace(config, confidence=share, num_target_classes=num_classes)
    starts = () if start is None else start.folds
    parts, alone, grouped = [], 0, any(ids is not None for ids in groups)
    for fold, (learn, rest, single) in enumerate(folds(data, config.seed, groups)):
        if groups[1] is not None and config.confidence is not None and single[1]:
            raise ValueError(
                f"Expected argument `target_groups` to have every class in at least two groups for `confidence`, but "
                f"{single[1]} samples are of a class that one half alone has."
            )
        if rest.groups[1] is not None and config.confidence is not None and len(rest.groups[1].unique()) < 2:
            raise ValueError(
                "Expected argument `target_groups` to hold at least 4 groups for `confidence`, two in each half, but "
                f"one half has a single one of {len(groups[1].unique() if groups[1] is not None else ())}."
            )
        first = starts[fold] if len(starts) == 2 else None
        part: dict[str, Any] = {"evaluation": rest.data, "groups": learn.groups, "evaluation_groups": rest.groups}
        parts.append(_solve(learn.data, half, start=first, fold=fold, **part, **given))
        alone = sum(single)
    return combine(parts, alone, grouped)


def _solve(
    data: Data,
    config: BoundConfig,
    *,
    head: nn.Linear | SoftmaxHead | tuple[Tensor, Tensor] | None,
    label_map: LabelMap,
    evaluation: EvaluationData | None,
    start: TaskRelatednessResult | None,
    groups: Groups = (None, None),
    evaluation_groups: Groups = (None, None),
    built: dict[int | None, Problem] | None,
    fold: int | None = None,
    turn: int | None = None,
    brief: bool = False,
) -> TaskRelatednessResult:
    """Learn on all of the data, and evaluate there or on other data; a brief answer is there for its bound.

    With ``turn``, the seed of it, a random copy stands for the reference. Problems by fold are kept in ``built``.
    """
    began = time.perf_counter()
    known = built or {}
    problem = known.get(fold)
    if problem is None:
        problem = Problem.build(*data, head=head, config=config, groups=groups, ordered=fold is not None)
    if built is not None:
        built[fold] = problem
        problem = replace(problem, messages=list(problem.messages))
    if turn is not None:
        problem.turn_reference(turn)
    if problem.head is not None and config.tau != "auto":
        problem.head = problem.head.limited(config.tau)
    first, request = None, config
    if start is not None:
        first = problem.start_from(start)
        config = replace(config, ridge=start.ridge if config.ridge is None else config.ridge)
    labels_used, published = "given", dict[str, float]()
    free_loss = None
    if config.method == "published":
        from lightning_transfer.published.task_relatedness import solve_published

        if data[3] is None:
            raise ValueError("Expected argument `target_labels` for `method='published'`, but got None.")
        solution, published = solve_published(problem, config, label_map)
    elif data[3] is None:
        labels_used = "kmeans" if config.pseudo_labels == "kmeans" else "pseudo"
        free_loss = reference_loss(problem.reference)
        solution = solve_unlabelled(problem, config, label_map, first)
    else:
        solution = solve(problem, config, label_map, first)

    chosen, certificate = solution.transforms, solution.certificate
    reference, target = problem.reference, problem.target
    counts = target.counts + 1
    log_prior = (counts / counts.sum()).log()
    population = None
    if evaluation is not None:
        reference, target = problem.evaluation_samples(evaluation, solution.transforms, evaluation_groups)
        certificate = certify(chosen, reference, target, config.ground_cost, config.block_size)
        if config.confidence is not None:
            log_p = smoothed(chosen.log_probabilities(target.features), log_prior)
            largest = -float(log_prior.min()) - math.log(SMOOTHING)
            losses = -log_p.gather(1, target.labels[:, None])[:, 0]
            if target.groups is not None:
                losses = torch.stack([losses[rows].mean() for rows in rows_of_groups(number_groups(target.groups)[0])])
            population = mean_bound(losses, largest, config.confidence)
    margin = None
    if config.ground_cost == "loss" and config.baselines:
        margin = look(chosen, reference, target, "logit_margin", config.block_size).coupling.cost
    error = bootstrap_error(chosen, reference, target, config)
    probe_loss = probe_accuracy = math.nan
    if not brief:
        probe_loss, probe_accuracy = probe(problem.target.thinned(config.fit_samples), target)
    if not certificate.optimal:
        problem.messages.append(
            "a transport problem was not solved to optimality; its plan was made feasible, the bound is valid"
        )
    if labels_used != "given":
        problem.messages.append("the bound is one of the loss on labels that were found, not of that on the true ones")
    rows, columns = problem.target_ids.argsort(), problem.reference_ids.argsort()
    return TaskRelatednessResult(
        certificate=certificate,
        fit=solution.certificate,
        evaluated_on="fit data" if evaluation is None else "evaluation data",
        config=request,
        tau=chosen.head.lipschitz_constant,
        tau_sampled=sampled_constant(chosen.head, chosen.label_map, chosen.feature_map(target.features), target.labels),
        kind=solution.kind,
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
        margin_mismatch=margin,
        population_bound=population,
        reference_loss=free_loss,
        log_prior=log_prior[rows],
    )


def _interval(value: float, error: float, level: float) -> tuple[float, float]:
    from scipy.stats import norm

    half = float(norm.ppf(0.5 + level / 2)) * error
    return value - half, value + half
