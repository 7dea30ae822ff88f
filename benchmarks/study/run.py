"""Run the study, or a part of it: rows come into ``rows/study.jsonl``, which another run goes on from."""

from __future__ import annotations

import argparse
from pathlib import Path

from plan import RECIPE, SOURCES, make_source, make_targets, make_text_target, make_text_zoo, make_zoo

from lightning_transfer import study

HERE = Path(__file__).parent


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--emoji", type=Path, default=None)
    parser.add_argument("--zoo", type=Path, default=None)
    parser.add_argument("--texts", type=Path, default=None, help="folder of Debian's fortunes: the text target instead")
    parser.add_argument("--part", default=None)
    parser.add_argument("--targets", nargs="*", default=None)
    parser.add_argument("--backbones", nargs="*", default=[""], help="names, or beginnings of names")
    parser.add_argument("--accelerator", default="cpu", help="cpu, or gpu: several slices at once fill one")
    parser.add_argument("--rows", type=Path, default=HERE / "rows", help="folder of the rows")
    options = parser.parse_args()
    only = tuple(options.backbones)
    if options.texts is not None:
        (backbones, about), targets, references = make_text_zoo(only), {"fortunes": make_text_target(options.texts)}, {}
    elif options.emoji is None or options.zoo is None:
        parser.error("expected --emoji and --zoo, or --texts")
    else:
        backbones, about = make_zoo(options.zoo, options.emoji, only)
        targets = make_targets(options.emoji)
        references = {source: make_source(source, options.emoji) for source, epochs in SOURCES.items() if epochs}
    if options.targets:
        targets = {name: targets[name] for name in options.targets}
    table = study(
        backbones,
        targets,
        about=about,
        references=references,
        trainer={"accelerator": options.accelerator},
        output_dir=options.rows,
        part=options.part,
        **RECIPE,
    )
    print("\n".join(table.headline()))


if __name__ == "__main__":
    main()
