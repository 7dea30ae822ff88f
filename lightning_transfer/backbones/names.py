"""Backbones that come with the package, by name; nothing heavy is imported."""

from __future__ import annotations

from typing import Any

_SIZE = 112  # pixels a side, as in conf/backbone: fast, and fit for the small images of the built-in targets

#: Module and class of every backbone with a name of its own, and the options that it is made with.
NAMED: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        f"efficientnet_lite{variant}{end}": (
            "efficientnet_lite:EfficientNetLite", {"variant": variant, "input_size": _SIZE, **options}
        )
        for end, options in (("", {}), ("_random", {"pretrained": False}))
        for variant in (0, 1, 2)
    },
    "sentence_encoder": ("transformers:SentenceEncoder", {}),
    "all_minilm_l6_v2": ("transformers:SentenceEncoder", {}),
    "all_minilm_l6_v2_random": ("transformers:SentenceEncoder", {"pretrained": False}),
}  # fmt: skip
