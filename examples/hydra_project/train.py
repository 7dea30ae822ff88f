"""A project laid out like the usual Lightning and Hydra template, with groups of lightning_transfer beside its own.

python train.py
python train.py target=digits_0_4 callbacks.transferability.metrics=[leep]
"""

from __future__ import annotations

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig


@hydra.main(config_path="conf", config_name="train", version_base="1.3")
def main(cfg: DictConfig) -> None:
    trainer = instantiate(cfg.trainer, callbacks=[instantiate(callback) for callback in cfg.callbacks.values()])
    trainer.fit(instantiate(cfg.model), datamodule=instantiate(cfg.target))
    for name, value in sorted(trainer.callback_metrics.items()):
        print(f"{name:25} {float(value):.4f}")


if __name__ == "__main__":
    main()
