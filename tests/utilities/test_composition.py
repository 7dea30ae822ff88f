"""What a composed config may hold; the attacks on it are in ``tests/attacks/test_configs.py``."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf, open_dict

from lightning_transfer.utilities.composition import check_composed


@pytest.fixture
def config():
    with initialize_config_module("lightning_transfer.conf", version_base="1.3"):
        return compose("screen", [], return_hydra_config=True)


def put(config, key, value):
    with open_dict(config):
        OmegaConf.update(config, key, value, force_add=True)
    return config


def test_the_packaged_configs_pass(config):
    check_composed(config)


def test_values_of_ones_own_pass(config):
    check_composed(put(config, "target.max_samples", 7))
    check_composed(put(config, "hydra.job.env_set", {"OMP_NUM_THREADS": "2"}))
    check_composed(put(config, "hydra.sweeper.max_batch_size", 3))


@pytest.mark.parametrize(("key", "value", "message"), [
    ("target._target_", "os.system", "is not allowed here"),
    ("hydra.launcher._target_", "os.system", r"hydra\.launcher\._target_: os\.system"),
    ("hydra.callbacks", {"x": {"_target_": "lightning_transfer.data.Digits"}}, "callbacks of this package"),
    ("hydra.launcher", "${hydra.sweeper}", "to be plain values, but got an interpolation"),
    ("hydra.job.env_set", {"LD_PRELOAD": "x.so"}, r"hydra\.job\.env_set\.LD_PRELOAD"),
    ("hydra.job_logging.handlers", {"x": {"()": "os.system"}}, "is not allowed here: logging is made of"),
    ("hydra.job_logging.handlers", {"x": {"class": "logging.FileHandler", "filename": ".bashrc"}}, r"end in \.log"),
    ("hydra.launcher.setup", ["rm -rf /"], "it reaches scripts or other programs"),
    ("target.trust_program", True, "is for the command line, not for a config file"),
])  # fmt: skip
def test_what_names_code_is_refused(config, key, value, message):
    with pytest.raises(ValueError, match=message):
        check_composed(put(config, key, value))


def test_what_is_typed_is_the_users_own_decision(config):
    changed = put(config, "hydra.job.env_set", {"MY_VARIABLE": "1"})
    with pytest.raises(ValueError, match="MY_VARIABLE"):
        check_composed(changed)
    check_composed(changed, frozenset({"hydra.job.env_set.MY_VARIABLE"}))
