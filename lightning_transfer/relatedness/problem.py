"""One comparison, checked and brought into the working space."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from lightning_transfer.relatedness.baseline import random_turn
from lightning_transfer.relatedness.bound import Transforms
from lightning_transfer.relatedness.config import BoundConfig
from lightning_transfer.relatedness.frame import Frame
from lightning_transfer.relatedness.head import SoftmaxHead
from lightning_transfer.relatedness.pseudo_labels import nearest
from lightning_transfer.relatedness.result import TaskRelatednessResult
from lightning_transfer.relatedness.sample import Sample, content_order, prepare, ties_of
from lightning_transfer.utilities.checks import check_features, check_labels, flatten_features, flatten_positions

EvaluationData = tuple[Tensor, Tensor, Tensor, "Tensor | None"]
GroupedEvaluationData = tuple[Tensor, Tensor, Tensor, "Tensor | None", "Tensor | None", "Tensor | None"]
Groups = tuple["Tensor | None", "Tensor | None"]  # of the reference and of the target
_WIDEST = 512  # features above this width are reduced ...
_REDUCED = 256  # ... to this one


@dataclass
class Problem:
    """Both sides of a comparison in the working space, with classes in an order of their own.

    Attributes:
        reference: Reference sample.
        target: Target sample; without labels all of one class until labels are found.
        reference_ids: Original id of each reference class, shape ``(K_R,)``.
        target_ids: Original id of each target class, shape ``(K_T,)``.
        frame: Map of raw features into the working space.
        head: The user's head in the working space, or None.
        seed: Seed of the order of the samples.
        messages: What the user should know.
        centres: Centres of the clusters that are the target classes, where k-means made them.
    """

    reference: Sample
    target: Sample
    reference_ids: Tensor
    target_ids: Tensor
    frame: Frame
    head: SoftmaxHead | None
    seed: int
    messages: list[str] = field(default_factory=list)
    centres: Tensor | None = None

    @staticmethod
    def build(
        reference_features: Tensor,
        reference_labels: Tensor,
        target_features: Tensor,
        target_labels: Tensor | None,
        *,
        head: nn.Linear | SoftmaxHead | tuple[Tensor, Tensor] | None,
        config: BoundConfig,
        groups: Groups = (None, None),
        ordered: bool = False,
    ) -> Problem:
        """Check the inputs and fit the working space.

        Args:
            reference_features: Shape ``(n_R, d)``.
            reference_labels: Shape ``(n_R,)``.
            target_features: Shape ``(n_T, d)``.
            target_labels: Shape ``(n_T,)``, or None.
            head: Classifier of raw reference features, or None.
            config: What is asked for: of the working space, the number of classes and the seed.
            groups: Ids of the groups of the samples of both sides, or None.
            ordered: Whether the rows of both sides are in the order of larger samples already.

        Returns:
            The problem.

        Raises:
            ValueError: If an input is malformed or does not fit the others.
        """
        seed, dimension = config.seed, config.dimension
        reference, labels, reference_ids, order = prepare(
            reference_features, reference_labels, "reference", seed, groups[0], ordered
        )
        reference_groups = in_order(groups[0], order, reference)
        unlabelled = target_labels is None
        check_classes(target_labels, config.num_target_classes)
        if target_labels is None:
            target_labels = torch.zeros(len(target_features), dtype=torch.long)
        target, target_labels, target_ids, order = prepare(
            target_features, target_labels, "target", seed, groups[1], ordered
        )
        target_groups = in_order(groups[1], order, reference)
        width = reference.shape[1]
        if target.shape[1] != width:
            raise ValueError(
                "Expected arguments `reference_features` and `target_features` to have the same width, "
                f"but got {width} and {target.shape[1]}."
            )
        target, target_labels = target.to(reference.device), target_labels.to(reference.device)
        users_head = None if head is None else SoftmaxHead.of(head, width, len(reference_ids))
        if isinstance(dimension, str):
            few = min(_REDUCED, len(reference), len(target))
            reduced = few if dimension == "auto" and width > _WIDEST and users_head is None else None
        else:
            reduced = dimension
        if reduced is not None and users_head is not None:
            raise ValueError(f"Expected argument `dimension` to be None with a head of one's own, but got {reduced}.")
        common_scale = config.tau == "auto" and users_head is None
        frame = Frame.fit(reference, target, config.standardize, common_scale, reduced)
        if users_head is not None:
            ranks = reference_ids.argsort().argsort()
            weight = users_head.weight.to(reference.device)[ranks]
            bias = users_head.bias.to(reference.device)[ranks] + weight @ frame.reference_mean
            users_head = SoftmaxHead(weight * frame.reference_scale, bias)
        return Problem(
            reference=Sample(frame.reference(reference), labels, len(reference_ids), groups=reference_groups),
            target=Sample(frame.target(target), target_labels, len(target_ids), groups=target_groups),
            reference_ids=reference_ids,
            target_ids=target_ids.to(reference.device) if not unlabelled else target_ids.new_zeros(0),
            frame=frame,
            head=users_head,
            seed=seed,
        )

    def keep_reference_classes(self, classes: Tensor) -> None:
        """Work with some of the reference classes only."""
        if len(classes) < self.reference.num_classes:
            self.messages.append(f"{len(classes)} of {self.reference.num_classes} reference classes are used")
            self.reference = self.reference.with_classes(classes)
            self.reference_ids = self.reference_ids[classes]

    def turn_reference(self, seed: int) -> None:
        """Put a random copy of the reference in its place.

        See :class:`~lightning_transfer.relatedness.baseline.Baseline`.
        """
        matrix, offset = random_turn(self.reference.features.mean(0), seed)
        self.frame = replace(self.frame, push_matrix=matrix, push_offset=offset)
        self.reference = self.reference.with_features(self.reference.features @ matrix.T + offset)

    def label_target(self, labels: Tensor) -> None:
        """Give the target sample labels, ``0 .. K_T - 1`` without gaps."""
        count = int(labels.max()) + 1
        self.target = Sample(self.target.features, labels, count, groups=self.target.groups)
        self.target_ids = torch.arange(count, device=labels.device)

    def in_working_order(self, label_map: Tensor) -> Tensor:
        """Check a label map of the user's own, which is ordered by class ids, and reorder it."""
        shape = (len(self.target_ids), len(self.reference_ids))
        if tuple(label_map.shape) != shape or not label_map.is_floating_point():
            raise ValueError(
                f"Expected argument `label_map` to be a floating point tensor of shape {shape}, "
                f"but got shape {tuple(label_map.shape)} and dtype {label_map.dtype}."
            )
        columns = label_map.double().sum(0)
        if float(label_map.min()) < 0 or float((columns - 1).abs().max()) > 1e-6:
            raise ValueError("Expected argument `label_map` to be non-negative with columns that sum to 1.")
        missed = self.target_ids.sort().values[(label_map.sum(1) == 0).to(self.target_ids.device)].tolist()
        if missed:
            raise ValueError(f"Expected argument `label_map` to reach every target class, but got zeros for {missed}.")
        label_map = label_map.to(self.target.features.device).double()
        rows, order = self.target_ids.argsort().argsort(), self.reference_ids.argsort().argsort()
        return (label_map / label_map.sum(0))[rows][:, order]

    def start_from(self, result: TaskRelatednessResult) -> Transforms:
        """Bring the transforms of an earlier result into this order of classes.

        Args:
            result: Earlier result.

        Returns:
            The transforms.

        Raises:
            ValueError: If widths differ, or the target classes, or reference classes are missing here.
        """
        device = self.reference.features.device
        result = result.to(device)
        if not len(self.target_ids):  # labels are still to be found: they will be numbered like those of the result
            self.target_ids = torch.arange(len(result.target_classes), device=device)
        ids = set(self.reference_ids.tolist())
        if (
            result.feature_map.matrix.shape[0] != self.reference.features.shape[1]
            or sorted(result.target_classes.tolist()) != sorted(self.target_ids.tolist())
            or not set(result.reference_classes.tolist()) <= ids
        ):
            raise ValueError(
                "Expected argument `warm_start` to be of the same width and classes, but got width "
                f"{result.feature_map.matrix.shape[0]}, reference classes {result.reference_classes.tolist()} "
                f"and target classes {result.target_classes.tolist()}."
            )
        if self.head is None:
            keep = torch.isin(self.reference_ids, result.reference_classes)
            self.keep_reference_classes(keep.nonzero()[:, 0])
        columns = _positions(result.reference_classes, self.reference_ids)
        rows = _positions(result.target_classes, self.target_ids)
        head = SoftmaxHead(result.head.weight[columns], result.head.bias[columns])
        return Transforms(
            head=self.head if self.head is not None else head,
            feature_map=result.feature_map,
            label_map=result.label_map[rows][:, columns],
            conditional=result.conditional[rows][:, columns],
        )

    def evaluation_samples(
        self, data: EvaluationData, transforms: Transforms, groups: Groups = (None, None)
    ) -> tuple[Sample, Sample]:
        """Bring evaluation data into the working space.

        Args:
            data: Reference features and labels, target features and labels (None for those of the clusters or of the
                transformed classifier).
            transforms: The transformed classifier.
            groups: Ids of the groups of the samples of both sides, or None.

        Returns:
            Reference and target sample.

        Raises:
            ValueError: If an input is malformed, a target label is unknown, or a reference class in use has no samples.
        """
        reference, labels = flatten_positions(data[0], data[1])
        reference = check_features(reference, "evaluation reference features")
        labels = check_labels(labels, len(reference), name="evaluation reference labels")
        target, target_labels, unlabelled = one_row_each(data[2], data[3], "evaluation target features")
        width = len(self.frame.reference_mean)
        if not len(target):
            raise ValueError("Expected argument `evaluation` to hold target samples, but got none.")
        if reference.shape[1] != width or target.shape[1] != width:
            raise ValueError(
                f"Expected argument `evaluation` to hold features of width {width}, "
                f"but got {reference.shape[1]} and {target.shape[1]}."
            )
        device = self.reference_ids.device
        reference, labels, target = reference.to(device), labels.to(device), target.to(device)
        used = torch.isin(labels, self.reference_ids)
        ids = in_order(groups[0], used, labels)
        reference, labels = reference[used], _positions(labels[used], self.reference_ids, into=True)
        counts = torch.bincount(labels, minlength=len(self.reference_ids))
        if bool((counts == 0).any()):
            raise ValueError(
                "Expected argument `evaluation` to hold samples of every reference class in use, but got none of "
                f"{self.reference_ids[counts == 0].tolist()}."
            )
        order = content_order(reference, self.seed, ties_of(labels, ids))
        ids = in_order(ids, order, labels)
        sample = Sample(self.frame.reference(reference[order]), labels[order], len(self.reference_ids), groups=ids)
        count = len(self.target_ids)
        if unlabelled:
            order = content_order(target, self.seed, groups[1])
            features = self.frame.target(target[order])
            predicted = nearest(features, self.centres) if self.centres is not None else transforms.predict(features)
            return sample, Sample(features, predicted, count, groups=in_order(groups[1], order, predicted))
        target_labels = check_labels(target_labels, len(target), name="evaluation target labels").to(device)
        unknown = target_labels[~torch.isin(target_labels, self.target_ids)]
        if len(unknown):
            raise ValueError(
                "Expected argument `evaluation` to hold target classes that the transforms were learned on, but got "
                f"{torch.unique(unknown).tolist()[:20]} too."
            )
        target_labels = _positions(target_labels, self.target_ids, into=True)
        order = content_order(target, self.seed, ties_of(target_labels, groups[1]))
        ids = in_order(groups[1], order, target)
        return sample, Sample(self.frame.target(target[order]), target_labels[order], count, groups=ids)


def in_order(groups: Tensor | None, order: Tensor, like: Tensor) -> Tensor | None:
    """Groups of some rows, on the device of another tensor; None without groups."""
    return None if groups is None else groups[order.to(groups.device)].to(like.device)


def check_classes(labels: Tensor | None, num_classes: int | None) -> None:
    """Every one of the target classes must have samples, where there are labels and a number of classes is given."""
    if labels is None or num_classes is None:
        return
    present = torch.unique(check_labels(labels, len(labels), num_classes, "target_labels"))
    missing = sorted(set(range(num_classes)) - set(present.tolist()))
    if missing:
        raise ValueError(
            f"Expected argument `target_labels` to hold samples of all {num_classes} classes, "
            f"but got none of {missing[:20]}."
        )


def one_row_each(features: Tensor, labels: Tensor | None, name: str) -> tuple[Tensor, Tensor, bool]:
    """One sample a row, with the labels or, where there are none, zeros; and whether there were none."""
    if labels is not None:
        return (*flatten_positions(features, labels), False)
    features = check_features(flatten_features(features), name)
    return features, torch.zeros(len(features), dtype=torch.long), True


def _positions(ids: Tensor, among: Tensor, into: bool = False) -> Tensor:
    """Where each of ``among`` stands among the ids; with ``into``, where each id stands in ``among``."""
    first, second = (among, ids) if into else (ids, among)
    order = first.argsort()
    return order[torch.searchsorted(first[order], second)]
