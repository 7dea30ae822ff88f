"""The command line, mostly as a process of its own, from a folder that is not the repository."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pandas as pd
import pytest

from lightning_transfer import cli
from lightning_transfer.screening import Leaderboard

TINY = ("target=digits", "max_samples=60", "metrics=h_score")


def run(folder, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("HYDRA_FULL_ERROR", "COLUMNS")}
    return subprocess.run(
        [sys.executable, "-m", "lightning_transfer", *arguments],
        cwd=folder, env=environment | variables, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def exit_code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    return stop.value.code


@pytest.fixture
def in_process(tmp_path, monkeypatch):
    """Run jobs here: what a process costs to start is spent once, in the tests that need one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.setenv("LIGHTNING_TRANSFER_ALLOCATOR", "system")
    return tmp_path


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_overview(capsys, arguments):
    assert exit_code(*arguments) == 0
    text = capsys.readouterr().out
    for job in ("screen", "relate", "finetune"):
        assert job in text


@pytest.mark.parametrize("job", ["screen", "relate", "finetune"])
def test_help_of_a_job_shows_examples_and_choices(capsys, job):
    assert exit_code(job, "--help") == 0
    text = capsys.readouterr().out
    assert f"lightning-transfer {job} " in text
    assert "efficientnet_lite0" in text
    assert "photo_patches" in text


def test_help_of_a_choice_shows_its_values(capsys):
    assert exit_code("screen", "target=image_folder", "--help") == 0
    assert "root: ???" in capsys.readouterr().out
    assert exit_code("screen", "--help", "target=image_foldr") == 2
    assert "did you mean 'image_folder'?" in capsys.readouterr().err


def test_help_lists_the_configs_of_a_folder(capsys, tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target/mine.yaml").touch()
    assert exit_code("relate", "--help", "--config-dir", str(tmp_path)) == 0
    assert capsys.readouterr().out.count("|mine|") == 2  # as target and as reference


def test_help_loads_nothing_heavy(tmp_path):
    code = (
        "import sys\nfrom lightning_transfer.cli import main\n"
        "try:\n    main(['screen', '--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'lightning', 'hydra', 'matplotlib', 'pandas', 'rich', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_version(capsys):
    assert exit_code("--version") == 0
    assert capsys.readouterr().out.startswith("lightning-transfer 0.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("scren",), "unknown job 'scren'; did you mean 'screen'\\? known jobs are screen, relate, finetune"),
        (("screen", "target=nope"), "unknown target 'nope'; known are .*digits.*photo_patches"),
        (("screen", "backbone=nope"), "unknown backbone 'nope'; known are .*efficientnet_lite0"),
        (("screen", "metrics=nope"), "unknown metrics 'nope'; known are all, default, .*logme"),
        (("screen", "zoo=nope"), "unknown zoo 'nope'; known are .*efficientnet_lite"),
        (("screen", "reference=nope"), "unknown reference 'nope'"),
        (("screen", "experiment=ray", "-m"), r"unknown hydra/launcher 'ray'; .*pip install lightning-transfer\[ray\]"),
        (("screen", "nope=3"), "nope"),
        (("screen", "a==b"), "Error parsing override"),
        (("screen", "rank_by=nope", *TINY), "Expected argument `rank_by`"),
        (("screen", "resume=nowhere", *TINY), "There is no leaderboard `nowhere`"),
        (("screen", "metrics=[logme,nope]"), "unknown metrics 'nope'; known are all, default, .*logme"),
        (("screen", "metrics=[]"), "metrics has no value: add metrics=NAME"),
        (("screen", "~target"), "target has no value"),
        (("screen", "+metrics.logme=5", "target=digits"), "`metrics` to hold a dict of options for 'logme', but got 5"),
        (("screen", "error_bars=abc", *TINY), "`error_bars` to be an integer of at least 0, but got 'abc'"),
        (("screen", "error_bars=[1]", *TINY), "`error_bars` to be an integer"),
        (("screen", "max_samples=abc", "target=digits"), "`max_samples` to be an integer of at least 1, but got 'abc'"),
        (("screen", "target=image_folder", "target.root=5"), "`root` to be a path, but got 5"),
        (("screen", "+target.nope=5"), "target: .*unexpected keyword argument 'nope'"),
        (("screen", "backbone=efficientnet_lite0", "backbone.seed=abc", *TINY), "efficientnet_lite0: .*`seed`"),
        (("screen", "backbone=efficientnet_lite0", "+backbone.nope=1", *TINY), "efficientnet_lite0: .*'nope'"),
        (
            ("screen", "backbone=program", "backbone.path=nowhere.pt2", "backbone.input_shape=[1,8,8]", *TINY),
            r"There is no program file `nowhere\.pt2`",
        ),
        (("screen", "target=idx"), "target.root has no value: add target.root=VALUE"),
        (("screen", "backbone=timm"), "backbone.model_name has no value"),
        (
            ("screen", "backbone=[efficientnet_lite0,efficientnet_lite9]", "target=digits"),
            "did you mean efficientnet_lite",
        ),
        (("screen", "+trainer.nope=3", *TINY), "trainer: .*nope"),
        (("screen", "target._target_=os.system", "zoo=efficientnet_lite"), "`_target_: os.system` is not allowed"),
        (("screen", "--experimental-rerun=x.pickle"), "reads a pickle"),
        (("relate", "target=digits"), "reference"),
        (("finetune", "target=nope"), "unknown target 'nope'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(in_process, capsys, arguments, message):
    assert exit_code(*arguments) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if not line.startswith("[")]
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("lightning-transfer: ")
    assert re.search(message, lines[0]), lines[0]
    assert "Traceback" not in captured.err


def test_a_missing_extra_says_how_to_install_it(in_process, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert exit_code("screen", "backbone=timm", "backbone.model_name=resnet18", *TINY) == 2
    assert "pip install lightning-transfer[timm]" in capsys.readouterr().err


def test_screen_prints_a_table_and_writes_files(tmp_path):
    done = run(tmp_path, "screen", "backbone=efficientnet_lite0", "backbone.input_size=32", *TINY)
    assert done.returncode == 0, done.stderr
    assert "Ranked by H-score (higher is better) on digits: 60 train samples, 10 classes." in done.stdout
    folder = next(tmp_path.glob("outputs/screen/*/*"))
    assert f"Written to {folder}" in done.stdout
    assert {path.suffix for path in folder.glob("leaderboard.*")} == {".csv", ".html", ".json", ".png"}
    table = pd.read_csv(folder / "leaderboard.csv")
    assert {"backbone", "h_score", "parameters", "flops", "seconds", "status"} <= set(table.columns)
    assert table["backbone"].tolist() == ["efficientnet_lite0"]
    assert table["status"].tolist() == ["ok"]


def test_a_screen_goes_on_from_the_folder_of_another(in_process, capsys):
    backbone = ("backbone=efficientnet_lite0_random", "backbone.input_size=32")
    assert exit_code("screen", *backbone, *TINY) == 0
    first = next(in_process.glob("outputs/screen/*/*"))
    assert exit_code("screen", *backbone, *TINY, f"resume={first}", "hydra.run.dir=again") == 0
    assert Leaderboard.load(in_process / "again").rows == Leaderboard.load(first).rows
    capsys.readouterr()
    assert exit_code("screen", *backbone, *TINY, f"resume={first}", "max_samples=20") == 2
    assert "its `max_samples` is" in capsys.readouterr().err


def test_unknown_names_as_a_process(tmp_path):
    done = run(tmp_path, "screen", "target=nope")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_bugs_keep_their_traceback_when_asked(tmp_path):
    done = run(tmp_path, "screen", "target=idx", HYDRA_FULL_ERROR="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_multirun_ranks_the_jobs_together(in_process, capsys):
    backbones = "backbone=efficientnet_lite0,efficientnet_lite0_random"
    assert exit_code("screen", "-m", backbones, "++backbone.input_size=32", *TINY) == 0
    sweep = next(in_process.glob("multirun/screen/*/*"))
    assert [Leaderboard.load(sweep / str(number)).rows[0].status for number in (0, 1)] == ["ok", "ok"]
    both = Leaderboard.load(sweep)
    assert {row.backbone for row in both.rows} == {"efficientnet_lite0", "efficientnet_lite0_random"}
    assert f"Written to {sweep}: leaderboard.csv" in capsys.readouterr().out.replace("\n", "")


def test_joblib_launcher_goes_on_after_a_job_that_fails(in_process, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    backbones = "backbone=efficientnet_lite0_random,timm,efficientnet_lite1_random"
    assert exit_code("screen", "-m", "experiment=parallel", backbones, "++backbone.input_size=32", *TINY) == 2
    sweep = next(in_process.glob("multirun/screen/*/*"))
    assert len(Leaderboard.load(sweep)) == 2
    failure = json.loads((sweep / "1/failure.json").read_text())
    assert failure["message"] == "backbone.model_name has no value: add backbone.model_name=VALUE."


@pytest.mark.long
def test_an_optuna_sweep_goes_on_after_a_job_that_fails(in_process, capsys):
    assert exit_code(
        "screen", "max_samples=choice(-5,60)", "-m", "hydra/sweeper=optuna", "hydra.sweeper.sampler.seed=0",
        "hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=1", "hydra.sweeper.direction=maximize",
        "backbone=efficientnet_lite0_random", "++backbone.input_size=32", "target=digits", "metrics=h_score",
    ) == 2  # fmt: skip
    sweep = next(in_process.glob("multirun/screen/*/*"))
    assert "max_samples: 60" in (sweep / "optimization_results.yaml").read_text()
    assert list(sweep.glob("*/failure.json"))
    assert "to be an integer of at least 1, but got -5" in capsys.readouterr().err


def test_every_backbone_failing_is_a_failed_job(in_process, capsys):
    assert exit_code("screen", "backbone=efficientnet_lite0", "target=diabetes") == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert "No backbone of this leaderboard has a score in `logme` (efficientnet_lite0: ValueError" in lines[0]


def test_a_sweep_goes_on_after_a_job_with_bad_input(in_process, capsys):
    backbones = "backbone=efficientnet_lite0,timm,efficientnet_lite0_random"
    assert exit_code("screen", "-m", backbones, "++backbone.input_size=32", *TINY) == 2
    error = "lightning-transfer: job 1: backbone.model_name has no value: add backbone.model_name=VALUE."
    assert error in capsys.readouterr().err.splitlines()
    both = Leaderboard.load(next(in_process.glob("multirun/screen/*/*")))
    assert {row.backbone for row in both.rows} == {"efficientnet_lite0", "efficientnet_lite0_random"}


def test_relate_writes_the_bound(in_process, capsys):
    assert exit_code("relate", "backbone.input_size=32", "reference=digits_0_4", "target=digits_5_9",
                     "max_samples=60", "+relatedness.rounds=1") == 0  # fmt: skip
    out = capsys.readouterr().out
    assert "bound" in out
    folder = next(in_process.glob("outputs/relate/*/*"))
    result = json.loads((folder / "relatedness.json").read_text())
    assert result["bound"] >= result["target_loss"] > 0
    assert (folder / "relatedness.png").stat().st_size > 1000


def test_a_sweep_of_relate_compares_the_bounds(in_process, capsys):
    references = "reference=digits_0_4,digits_5_9"
    assert exit_code("relate", "-m", references, "target=digits_5_9", "backbone.input_size=32",
                     "max_samples=60", "+relatedness.rounds=1") == 0  # fmt: skip
    bounds = json.loads(next(in_process.glob("multirun/relate/*/*/relatedness.json")).read_text())["results"]
    assert [result["reference"] for result in bounds] == ["digits_0_4", "digits_5_9"]
    table = capsys.readouterr().out.rpartition("Reference")[2]
    assert table.index("digits_5_9") < table.index("digits_0_4")  # the target itself is the nearest reference
