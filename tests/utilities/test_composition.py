"""What a composed config may hold; the attacks on it are in ``tests/attacks/test_configs.py``."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_module
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core import utils as hydra_utils
from omegaconf import OmegaConf, open_dict

from lightning_transfer.utilities.composition import CheckedLoader, check_composed, checked_configs


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
    ("hydra.launcher.setup", ["rm -rf /"], "it may reach scripts, other programs or places"),
    ("hydra.sweep.mode", "777", "it opens the folder"),
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


LAUNCHER = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher"
QUEUE = {"_target_": LAUNCHER, "submitit_folder": "${hydra.sweep.dir}/.submitit/%j", "timeout_min": 5, "setup": None}


def launched(config, queue):
    with open_dict(config):
        config.hydra.launcher = OmegaConf.create(queue)
    return config


def test_pickles_of_jobs_go_where_nobody_can_have_put_some(config):
    places = set()
    for _ in range(2):
        check_composed(launched(config, QUEUE))
        with open_dict(config):
            config.hydra.sweep.dir = "/chosen/later"
        places.add(config.hydra.launcher.submitit_folder)
    assert len(places) == 2
    for place in places:
        before, secret, number = place.rsplit("/", 2)
        assert (before, len(secret), number) == ("/chosen/later/.submitit", 32, "%j")


def test_no_place_is_the_working_directory(config):
    with pytest.raises(ValueError, match=r"hydra\.launcher\.submitit_folder"):
        check_composed(launched(config, {**QUEUE, "submitit_folder": ""}))


def test_the_user_may_name_the_folder_of_pickles(config):
    changed = launched(config, {**QUEUE, "submitit_folder": "mine/%j", "setup": ["module load x"]})
    with pytest.raises(ValueError, match=r"hydra\.launcher\.submitit_folder"):
        check_composed(changed)
    with pytest.raises(ValueError, match=r"hydra\.launcher\.setup\.0"):
        check_composed(changed, frozenset({"hydra.launcher.submitit_folder"}))
    check_composed(changed, frozenset({"hydra.launcher.submitit_folder", "hydra.launcher.setup"}))
    assert changed.hydra.launcher.submitit_folder == "mine/%j"


def test_what_is_typed_says_nothing_of_what_a_file_puts_beside_it():
    typed = ["-m", "+hydra.launcher.ray.init={num_cpus: 2, runtime_env: {pip: [x]}}", "hydra.launcher.setup=[a,b]"]
    keys = CheckedLoader(ConfigSearchPathImpl(), typed).typed
    assert {"hydra.launcher.ray.init.num_cpus", "hydra.launcher.ray.init.runtime_env.pip"} <= keys
    assert "hydra.launcher.setup" in keys
    assert not {"hydra.launcher.ray.init", "hydra.launcher.ray.init.runtime_env"} & keys


def test_notes_of_hydra_that_cannot_be_written_cost_a_line(tmp_path):
    (tmp_path / "file").touch()
    with checked_configs(()), pytest.warns(UserWarning, match="config of the job is not written"):
        hydra_utils._save_config(OmegaConf.create(), "config.yaml", tmp_path / "file")
