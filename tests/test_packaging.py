"""What is installed: the list of packages, the configs inside the wheel, nothing heavy on import, and no circles."""

from __future__ import annotations

import ast
import functools
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import networkx as nx
import pytest
from _helpers import load_estimators

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TESTS = Path(__file__).parent
ROOT = TESTS.parent
PACKAGE = ROOT / "lightning_transfer"


@pytest.fixture(scope="module")
def settings():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_list_of_packages_follows_the_tree(settings):
    found = {
        ".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "lightning_transfer").rglob("__init__.py")
    }
    assert sorted({*found, "lightning_transfer.conf"}) == sorted(settings["tool"]["setuptools"]["packages"])


def test_wheel_holds_configs_and_types(tmp_path):
    source = tmp_path / "source"  # building leaves files behind
    for folder in ("lightning_transfer", "conf"):
        shutil.copytree(ROOT / folder, source / folder)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(source)], check=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    configs = {
        "lightning_transfer/conf/" + str(path.relative_to(ROOT / "conf")) for path in ROOT.glob("conf/**/*.yaml")
    }
    assert configs
    assert configs <= names
    assert "lightning_transfer/py.typed" in names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]


@pytest.mark.long
def test_sdist_and_the_wheel_of_it_run_elsewhere(tmp_path):
    source = tmp_path / "source"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    subprocess.run([sys.executable, "-m", "build", "-o", str(tmp_path / "dist"), str(source)], check=True)
    (sdist,) = (tmp_path / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert {name for name in tracked.split("\0") if name[:1] != "."} <= packed | {""}  # tests and docs too
    (wheel,) = (tmp_path / "dist").glob("*.whl")  # which was built from the sdist
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    work = tmp_path / "work"
    work.mkdir()
    arguments = ["screen", "zoo=[efficientnet_lite0_random]", "target=digits", "max_samples=30", "metrics=h_score"]
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'installed')!r})\nfrom lightning_transfer import cli\n"
        f"assert cli.__file__.startswith({str(tmp_path)!r})\n"
    )
    for words in (arguments, ["report", "outputs/screen"]):
        subprocess.run([sys.executable, "-c", f"{code}cli.main({words!r})"], cwd=work, check=True)
    (report,) = work.rglob("report.html")
    assert "efficientnet_lite0_random" in report.read_text()


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("lightning_transfer", {"torch", "lightning", "sklearn", "matplotlib", "pandas", "ot", "hydra"}),
        ("lightning_transfer.cli", {"torch", "lightning", "sklearn", "matplotlib", "pandas", "ot"}),
        ("lightning_transfer.functional", {"pandas", "ot", "hydra"}),
        ("lightning_transfer.jobs.list as job; job.run([])", {"torch", "lightning", "sklearn", "hydra", "rich"}),
    ],
)
def test_import_is_light(module, heavy):
    code = f"import sys, {module}; print(sorted(set(sys.modules) & {heavy!r}))"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output.splitlines()[-1] == "[]"


def test_public_names():
    import lightning_transfer

    assert set(lightning_transfer.__all__) < set(dir(lightning_transfer))
    assert lightning_transfer.__version__.count(".") == 2
    for name in lightning_transfer.__all__:
        assert getattr(lightning_transfer, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = lightning_transfer.no_such_name


def imported(tree):
    """Names of all that a module imports, also inside functions; what only type checkers see is left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from imported(ast.Module(node.orelse, []))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        else:
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                yield from (part.value for part in node.args if isinstance(part, ast.Constant))
            yield from imported(node)


def import_graph(sources):
    """Edges from each module to those it imports, and to the packages that this brings in (but for its own)."""
    graph = nx.DiGraph()
    for module, source in sources.items():
        graph.add_node(module)
        for name in imported(ast.parse(source)):
            parts = name.split(".")
            loaded = {".".join(parts[: i + 1]) for i in range(len(parts))} & set(sources)
            asked = max(loaded, key=len, default=None)
            graph.add_edges_from(
                (module, other) for other in loaded if other == asked or not f"{module}.".startswith(f"{other}.")
            )
    return graph


def circles(graph):
    return [sorted(part) for part in nx.strongly_connected_components(graph) if len(part) > 1]


def package_sources():
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path.read_text()
        for path in (ROOT / "lightning_transfer").rglob("*.py")
    }


def test_modules_import_each_other_in_no_circle():
    sources = package_sources()
    graph = import_graph(sources)
    assert graph.number_of_edges() > len(sources)
    assert circles(graph) == []


def test_no_circle_either_in_what_type_checkers_see():
    sources = package_sources()
    graph = nx.DiGraph()
    for module, source in sources.items():
        nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
        names = {f"{node.module}.{alias.name}" for node in nodes for alias in node.names} | {
            node.module for node in nodes
        }
        graph.add_edges_from((module, name) for name in names & set(sources) - {module})
    packages = {name for name in sources if any(other.startswith(f"{name}.") for other in sources)}
    graph.remove_nodes_from([package for package in packages if package in graph])
    assert graph.number_of_edges() > len(sources)
    assert circles(graph) == []


@pytest.mark.parametrize(
    ("one", "circular"),
    [
        ("import p.b", True),
        ("def later():\n    from p import b", True),
        ("def later():\n    return importlib.import_module('p.b')", True),
        ("from q import d", True),  # brings in q, which imports p.a
        ("if TYPE_CHECKING:\n    from p.b import thing", False),
        ("if TYPE_CHECKING:\n    import p.c\nelse:\n    import p.b", True),
        ("from p import c", False),
    ],
)
def test_circles_are_seen(one, circular):
    others = {"p": "", "p.b": "from p.a import thing", "p.c": "", "q": "from p.a import thing", "q.d": ""}
    assert nx.is_directed_acyclic_graph(import_graph({"p.a": one, **others})) is not circular


#: Modules that are tested elsewhere, and where.
MIRRORED_ELSEWHERE = {
    "published/parc.py": "published/test_scores.py",  # values of released code, one table for all scores
}
_MOST_LINES = 30  # of code, without docstrings and comments, that need no file of tests


def lines_of_code(path: Path) -> int:
    text = path.read_text()
    nodes = [
        node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
    ]
    told = [node.body[0] for node in nodes if ast.get_docstring(node) is not None]
    silent = {line for node in told for line in range(node.lineno, node.end_lineno + 1)}
    lines = enumerate(text.splitlines(), start=1)
    return sum(
        number not in silent and bool(line.strip().rstrip("(){}[],").partition("#")[0]) for number, line in lines
    )


@functools.cache
def scores() -> set[str]:
    """Classes that are rows of ``tests/_estimators``, which brings each some sixty tests."""
    return {type(row.metric(**row.arguments, **row.metric_arguments)).__name__ for row in load_estimators()}


def is_a_score(path: Path) -> bool:
    classes = [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
    public = {name for name in classes if not name.startswith("_")}
    return path.parent.name == "metrics" and bool(public) and public <= scores()


def test_tests_lie_where_the_modules_lie():
    missing = []
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(PACKAGE)
        mirror = TESTS / module.with_name(f"test_{module.stem.lstrip('_')}.py")
        if path.name in ("__init__.py", "__main__.py") or mirror.exists() or lines_of_code(path) <= _MOST_LINES:
            continue
        if not (is_a_score(path) or module.as_posix() in MIRRORED_ELSEWHERE):
            missing.append(module.as_posix())
    assert not missing, f"no tests/<room>/test_<module>.py for {missing}"


def test_exceptions_from_the_mirror_are_needed_and_true():
    for module, tests in MIRRORED_ELSEWHERE.items():
        path = PACKAGE / module
        assert lines_of_code(path) > _MOST_LINES
        assert not (TESTS / path.relative_to(PACKAGE).with_name(f"test_{path.stem}.py")).exists()
        assert path.stem in (TESTS / tests).read_text()
