"""What the solver hands back: figures, transforms, and how far to trust them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_transfer.relatedness.bound import Certificate, Transforms
from lightning_transfer.relatedness.frame import Frame
from lightning_transfer.relatedness.head import SoftmaxHead
from lightning_transfer.relatedness.plotting import plot_result
from lightning_transfer.relatedness.transforms import FeatureMap
from lightning_transfer.utilities.text import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Figures:
    """The bound and its parts on one pair of samples; losses are in nats.

    Attributes:
        reweighted_reference_loss: First term.
        label_mismatch: Second term.
        distribution_mismatch: Third term.
        transformed_reference_loss: Loss of the transformed classifier on the transformed reference.
        target_loss: Loss of the transformed classifier on the target.
        target_accuracy: Its accuracy.
        num_reference: Reference samples.
        num_target: Target samples.
    """

    reweighted_reference_loss: float
    label_mismatch: float
    distribution_mismatch: float
    transformed_reference_loss: float
    target_loss: float
    target_accuracy: float
    num_reference: int
    num_target: int

    @property
    def bound(self) -> float:
        """Sum of the three terms."""
        return self.reweighted_reference_loss + self.label_mismatch + self.distribution_mismatch

    @property
    def tighter_bound(self) -> float:
        """Transformed reference loss plus distribution mismatch (Theorem 2 of the paper)."""
        return self.transformed_reference_loss + self.distribution_mismatch

    @staticmethod
    def of(certificate: Certificate) -> Figures:
        """Take the numbers out of a certificate."""
        return Figures(**{part.name: getattr(certificate, part.name) for part in fields(Figures)})

    def to_dict(self) -> dict[str, float]:
        """Return plain values, the bounds included."""
        return {"bound": self.bound, "tighter_bound": self.tighter_bound, **asdict(self)}


@dataclass(frozen=True)
class TaskRelatednessResult:
    """The task-relatedness bound of a target under a reference; lower is better.

    Attributes:
        figures: The bound and its parts on the evaluated data: the answer.
        fit_figures: The same on the data that the transforms were learned on.
        held_out_figures: The same on target samples that took no part in choosing the ridge of the feature map, by the
            transforms fitted without them; None if nothing was chosen.
        evaluated_on: ``"fit data"`` or ``"evaluation data"``.
        tau: Certified Lipschitz constant of the head, in nats per unit of the working space.
        tau_requested: What was asked for.
        tau_certificate: How ``tau`` was certified, in words.
        tau_sampled: The published estimate, the largest gradient over the evaluated target: too small for a bound.
        ground_cost: Cost between features.
        method: ``"alternating"`` or ``"published"``.
        learned: Which transforms were learned.
        feature_map_kind: Family of the feature map.
        kind: Which candidate won: ``"learned"``, ``"identity map"`` or ``"constant head"``.
        labels_used: ``"given"``, ``"pseudo"`` or ``"kmeans"``; with the latter two the bound is one of the
            loss on these labels.
        frame: Standardisation and reduction of both sides, before all else.
        head: Reference classifier in the working space.
        feature_map: Map of target features in the working space.
        label_map: ``B``, shape ``(K_T, K_R)``.
        conditional: Reference classes behind each target class, shape ``(K_T, K_R)``.
        class_prior: ``D`` on the evaluated data, shape ``(K_R,)``.
        target_prior: ``P_T`` on the evaluated data, shape ``(K_T,)``.
        reference_classes: Ids of the reference classes in use, shape ``(K_R,)``.
        target_classes: Ids of the target classes, shape ``(K_T,)``.
        probe_loss: Loss on the evaluated target of a linear probe under the same constant, trained on the fit data.
        probe_accuracy: Its accuracy.
        ridge: Ridge of the feature map.
        rounds: Alternations made.
        converged: Whether every head fit and every transport problem of the answer met its tolerance.
        history: Bound after each alternation, on the samples that the solver looks at.
        seconds: Wall-clock time.
        messages: What a reader should know, in plain words.
        published: What the published code would have printed (only ``method="published"``).
        standard_error: Bootstrap standard error of the bound; None if no interval was asked for.
        interval: Normal interval of the bound.
        level: Nominal coverage of the interval.
        reference_class_names: Names of the reference classes in use.
        target_class_names: Names of the target classes.
    """

    figures: Figures
    fit_figures: Figures
    held_out_figures: Figures | None
    evaluated_on: str
    tau: float
    tau_requested: float | str
    tau_certificate: str
    tau_sampled: float
    ground_cost: str
    method: str
    learned: tuple[str, ...]
    feature_map_kind: str
    kind: str
    labels_used: str
    frame: Frame
    head: SoftmaxHead
    feature_map: FeatureMap
    label_map: Tensor
    conditional: Tensor
    class_prior: Tensor
    target_prior: Tensor
    reference_classes: Tensor
    target_classes: Tensor
    probe_loss: float
    probe_accuracy: float
    ridge: float
    rounds: int
    converged: bool
    history: tuple[float, ...]
    seconds: float
    messages: tuple[str, ...] = ()
    published: dict[str, float] = field(default_factory=dict)
    standard_error: float | None = None
    interval: tuple[float, float] | None = None
    level: float = 0.95
    reference_class_names: tuple[str, ...] | None = None
    target_class_names: tuple[str, ...] | None = None

    @property
    def bound(self) -> float:
        """The bound on the evaluated data, in nats."""
        return self.figures.bound

    @property
    def tighter_bound(self) -> float:
        """The form of Theorem 2 of the paper, which is never above :attr:`bound`."""
        return self.figures.tighter_bound

    @property
    def reweighted_reference_loss(self) -> float:
        """First term of the bound."""
        return self.figures.reweighted_reference_loss

    @property
    def label_mismatch(self) -> float:
        """Second term of the bound."""
        return self.figures.label_mismatch

    @property
    def distribution_mismatch(self) -> float:
        """Third term of the bound."""
        return self.figures.distribution_mismatch

    @property
    def target_loss(self) -> float:
        """Loss of the transformed classifier on the evaluated target; never above :attr:`bound`."""
        return self.figures.target_loss

    @property
    def target_accuracy(self) -> float:
        """Accuracy of the transformed classifier on the evaluated target."""
        return self.figures.target_accuracy

    @property
    def joint(self) -> Tensor:
        """Joint mass ``M`` of target and reference classes, shape ``(K_T, K_R)``; rows sum to the target prior."""
        return self.target_prior[:, None] * self.conditional

    @property
    def transforms(self) -> Transforms:
        """The transforms, in the working space."""
        return Transforms(self.head, self.feature_map, self.label_map, self.conditional)

    def log_probabilities(self, target_features: Tensor) -> Tensor:
        """Classify target features with the transformed classifier.

        Args:
            target_features: Raw features, shape ``(n, d)``.

        Returns:
            Log-probabilities of the target classes, shape ``(n, K_T)``, in the order of ``target_classes``.
        """
        return self.transforms.log_probabilities(self.frame.target(target_features))

    def to_dict(self) -> dict[str, Any]:
        """Return all figures, the label map and the class prior as plain values, ready for JSON."""
        left_out = {"figures", "fit_figures", "held_out_figures", "frame", "head", "feature_map"}
        plain = {
            part.name: _plain(getattr(self, part.name)) for part in fields(self) if part.name not in left_out
        }  # fmt: skip
        return {
            **self.figures.to_dict(),
            **plain,
            "fit": self.fit_figures.to_dict(),
            "held_out": None if self.held_out_figures is None else self.held_out_figures.to_dict(),
        }

    def state_dict(self) -> dict[str, Tensor]:
        """Export as tensors, to store it or to start the next solve from it; see :meth:`from_state`."""
        state: dict[str, Tensor] = {}
        meta: dict[str, Any] = {}
        for part in fields(self):
            value = getattr(self, part.name)
            if isinstance(value, (Frame, SoftmaxHead, FeatureMap)):
                inner = {f"{part.name}.{key.name}": getattr(value, key.name) for key in fields(value)}
                state.update({key: tensor.clone() for key, tensor in inner.items() if tensor is not None})
            elif isinstance(value, Tensor):
                state[part.name] = value.clone()
            else:
                meta[part.name] = asdict(value) if isinstance(value, Figures) else value
        state["meta"] = torch.tensor(list(json.dumps(meta).encode()), dtype=torch.uint8)
        return state

    @staticmethod
    def from_state(state: dict[str, Tensor]) -> TaskRelatednessResult:
        """Rebuild a result from :meth:`state_dict`.

        Args:
            state: Tensors by name.

        Returns:
            The result.

        Raises:
            ValueError: If entries are missing.
        """
        try:
            values: dict[str, Any] = json.loads(bytes(state["meta"].cpu().tolist()).decode())
            for name in ("figures", "fit_figures", "held_out_figures"):
                values[name] = None if values[name] is None else Figures(**values[name])
            for name in ("learned", "history", "messages", "interval", "reference_class_names", "target_class_names"):
                values[name] = None if values[name] is None else tuple(values[name])
            for name, kind in (("frame", Frame), ("head", SoftmaxHead), ("feature_map", FeatureMap)):
                inner: dict[str, Any] = {key.name: state.get(f"{name}.{key.name}") for key in fields(kind)}
                values[name] = kind(**inner)
            for part in fields(TaskRelatednessResult):
                if part.name not in values:
                    values[part.name] = state[part.name]
            return TaskRelatednessResult(**values)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"Expected argument `state` to be a state of a result, but got {sorted(state)}."
            ) from error

    def to(self, device: torch.device | str) -> TaskRelatednessResult:
        """The same result with its tensors on another device."""
        state = {name: tensor.to(device) for name, tensor in self.state_dict().items()}
        return TaskRelatednessResult.from_state(state)

    def with_names(
        self, reference_names: Sequence[str] | None, target_names: Sequence[str] | None
    ) -> TaskRelatednessResult:
        """The same result with names for its classes, which are given by class id."""

        def pick(names: Sequence[str] | None, ids: Tensor) -> tuple[str, ...] | None:
            return None if names is None else tuple(names[i] if i < len(names) else str(i) for i in ids.tolist())

        return replace(
            self,
            reference_class_names=pick(reference_names, self.reference_classes),
            target_class_names=pick(target_names, self.target_classes),
        )

    def class_names(self) -> tuple[list[str], list[str]]:
        """Names of the reference and target classes; their ids where they have none."""
        reference, target = self.reference_class_names, self.target_class_names
        return (
            list(reference or map(str, self.reference_classes.tolist())),
            list(target or map(str, self.target_classes.tolist())),
        )

    def matches(self) -> list[tuple[str, str, float]]:
        """For each target class, the reference class that stands for it most, and its share."""
        reference, target = self.class_names()
        share, choice = self.conditional.max(dim=1)
        return [(target[k], reference[int(j)], float(share[k])) for k, j in enumerate(choice)]

    def plot(self) -> Figure:
        """Draw the decomposition as stacked bars and the label map as a heat map.

        Returns:
            A matplotlib figure.
        """
        return plot_result(self)

    def __str__(self) -> str:
        f, fit, rest = self.figures, self.fit_figures, self.held_out_figures
        rows = [
            ("re-weighted reference loss", "reweighted_reference_loss"),
            ("label mismatch", "label_mismatch"),
            ("distribution mismatch", "distribution_mismatch"),
            ("bound", "bound"),
            ("bound, tighter form", "tighter_bound"),
            ("loss of the transformed classifier", "target_loss"),
            ("accuracy of the transformed classifier", "target_accuracy"),
        ]
        columns = [(self.evaluated_on, f)]
        if self.evaluated_on != "fit data":
            columns.append(("fit data", fit))
        if rest is not None:
            columns.append(("held-out part", rest))
        lines = [" " * 40 + "".join(f"{name:>17}" for name, _ in columns)]
        lines += [f"{title:<40}" + "".join(f"{getattr(c, key):17.4f}" for _, c in columns) for title, key in rows]
        lines.insert(4, "-" * len(lines[0]))
        chance = float(torch.tensor(float(len(self.target_classes))).log())
        spread = ""
        if self.interval is not None:
            spread = (
                f"bound {self.bound:.4f}, {self.level:.0%} interval {self.interval[0]:.4f} to {self.interval[1]:.4f}"
            )
        matches = ", ".join(plain(f"{target} <- {reference}") for target, reference, _ in self.matches()[:12])
        notes = [
            spread,
            f"linear target probe under the same constant: loss {self.probe_loss:.4f}, "
            f"accuracy {self.probe_accuracy:.4f}; guessing costs {chance:.4f}",
            f"tau {self.tau:.4g} ({self.tau_certificate}; requested {self.tau_requested}, "
            f"largest gradient on samples {self.tau_sampled:.4g}), ground cost {self.ground_cost}",
            f"method {self.method}, learned {', '.join(self.learned) or 'nothing'}, "
            f"{self.feature_map_kind} feature map, answer: {self.kind}, target labels: {self.labels_used}",
            f"{f.num_reference} reference and {f.num_target} target samples, "
            f"{len(self.reference_classes)} reference and {len(self.target_classes)} target classes, "
            f"{'converged' if self.converged else 'NOT converged'}, "
            f"{self.seconds:.2f} s",
            f"label map: {matches}{', ...' if len(self.target_classes) > 12 else ''}",
            *(f"published code: {name} {value:.4f}" for name, value in self.published.items()),
            *(f"note: {message}" for message in self.messages),
        ]
        return "\n".join(["Task-relatedness bound (nats, lower is better)", *lines, *(note for note in notes if note)])


def _plain(value: Any) -> Any:
    """Turn tensors and tuples into lists."""
    if isinstance(value, Tensor):
        return value.tolist()
    return [_plain(part) for part in value] if isinstance(value, tuple) else value
