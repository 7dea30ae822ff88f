"""Program files that would run code of their author are refused before they are opened."""

import io
import json
import warnings
import zipfile

import pytest
import torch
from torch import nn

from lightning_transfer.backbones import ProgramBackbone
from lightning_transfer.backbones.programs import _check_expression, check_exported

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        tokens = self.conv(x).flatten(2).mT
        return self.attention(tokens, tokens, tokens)[0].mean(1)


def _export(path, shape=(2, 3, 8, 8), dynamic=None):
    dynamic = dynamic or {0: torch.export.Dim("batch", min=1, max=64)}
    torch.export.save(torch.export.export(Net().eval(), (torch.rand(shape),), dynamic_shapes=(dynamic,)), path)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("program") / "net.pt2"
    _export(path)
    return path


def _rewrite(source, target, change=None, extra=None):
    """Copy an archive with its model description changed and members added."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        folder = old.namelist()[0].partition("/")[0]
        for member in old.infolist():
            content = old.read(member)
            if change and member.filename.endswith("models/model.json"):
                model = json.loads(content)
                change(model)
                content = json.dumps(model).encode()
            new.writestr(member.filename, content)
        for name, content in (extra or {}).items():
            new.writestr(f"{folder}/{name}", content)
    return target


def _expression(text):
    def change(model):
        for value in model["graph_module"]["graph"]["tensor_values"].values():
            for size in value["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = text

    return change


def _operation(name):
    def change(model):
        model["graph_module"]["graph"]["nodes"][0]["target"] = name

    return change


ATTACKS = {
    "call": _expression("__import__('os').system('touch {mark}')"),
    "attribute": _expression("Symbol('s0').__class__.__mro__"),
    "lambda": _expression("(lambda: open('{mark}', 'w'))()"),
    "comprehension": _expression("[open('{mark}', 'w') for x in (1,)]"),
    "unknown function": _expression("exec('x')"),
    "text": _expression("Symbol('open(1)')"),
    "tower": _expression("9**9**9**9"),
    "power": _expression("PowByNatural(9, 99999999)"),
    "long": _expression("1+" * 20_000 + "1"),
    "deep": _expression("(" * 9_000 + "1" + ")" * 9_000),
    "hub": _operation("torch.hub.load"),
    "load": _operation("torch.load"),
    "system": _operation("math.__loader__.load_module"),
    "file": _operation("torch.ops.aten.from_file.default"),
    "space": _operation("torch.ops.c10d.barrier.default"),
    "guard": lambda model: model.update(guards_code=["__import__('os').system('touch {mark}')"]),
    "guard attribute": lambda model: model.update(guards_code=["L['x'].__class__ is None"]),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_description_that_runs_code_is_refused(exported, tmp_path, attack):
    path = _rewrite(exported, tmp_path / "trap.pt2", ATTACKS[attack])
    with pytest.raises(ValueError, match="trust_program=True") as caught:
        ProgramBackbone(path, (3, 8, 8))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "member",
    [
        "data/aotinductor/model/x.so", "data/constants/custom_obj_0", "data/constants/opaque_obj_0", "extra/x.py",
        "models/../x.json", "executorch/x.pte", "models/MODEL.json", "byteorder",
    ],
)  # fmt: skip
def test_members_that_are_not_tensors_are_refused(exported, tmp_path, member):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that is there already
        path = _rewrite(exported, tmp_path / "trap.pt2", extra={member: b"{}"})
    with pytest.raises(ValueError, match="trust_program=True"):
        ProgramBackbone(path, (3, 8, 8))


def test_programs_as_they_are_written_are_read(exported, tmp_path):
    assert ProgramBackbone(exported, (3, 8, 8))(torch.rand(5, 3, 8, 8)).features.shape == (5, 4)
    sides = {2: torch.export.Dim("height", min=4, max=32), 3: torch.export.Dim("width", min=4, max=32)}
    _export(tmp_path / "sides.pt2", dynamic=sides)
    check_exported((tmp_path / "sides.pt2").read_bytes())
    trusted = _rewrite(exported, tmp_path / "more.pt2", extra={"extra/note": b"hello"})
    assert ProgramBackbone(trusted, (3, 8, 8), trust_program=True).feature_dim == 4


@pytest.mark.parametrize(
    "text",
    [
        "Symbol('s31', positive=True, integer=True)", "s0*s1 + 2", "FloorDiv(s0 - 3, 2) + 1", "Max(1, Min(s0, 4))",
        "Mod(s0, 2)", "s0**2", "Eq(s0, 4)", "-s0//2 % 3", "2*(((s0 - 1)//2)) + 1",
        "Add(Mul(Integer(36), Pow(Symbol('s7', positive=True, integer=True), Integer(2))), Integer(-1))",
    ],
)  # fmt: skip
def test_expressions_of_sizes_are_allowed(text):
    _check_expression(text, guard=False)


class Writer(nn.Module):
    def forward(self, x):
        return torch.from_file("mark", True, x.numel())


def test_torchscript_that_touches_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.jit.script(Writer()).save("trap.pt")
    with pytest.raises(ValueError, match=r"calls `from_file`.*trust_program=True"):
        ProgramBackbone("trap.pt", (4,))
    torch.jit.script(nn.ReLU()).save("plain.pt")
    for code in ("(x).save('mark')", "ops.image.write_file(x)", "__torch__.torch.classes.c10d.Store"):
        with zipfile.ZipFile("plain.pt") as old, zipfile.ZipFile("bad.pt", "w") as new:
            for member in old.infolist():
                content = old.read(member)
                new.writestr(member.filename, content + f"\n{code}".encode() if ".py" in member.filename else content)
        with pytest.raises(ValueError, match="trust_program=True"):
            ProgramBackbone("bad.pt", (4,))
    assert ProgramBackbone("plain.pt", (4,)).feature_dim == 4
    assert not (tmp_path / "mark").exists()


_PAIRS = b"".join(b"h%ch%c\x86q%c" % (number, number, number + 1) for number in range(40))  # of pairs of pairs of ...
PICKLES = {
    "memory": b"\x80\x02c__builtin__\nbytearray\n\x8a\x05\x00\x00\x00\x00\x02\x85R.",
    "time": b"\x80\x02K\x01K\x02\x86q\x00" + _PAIRS + b"}h\x28K\x01s.",
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("pickled", PICKLES.values(), ids=PICKLES)
def test_examples_of_inputs_claim_no_more_than_they_hold(exported, tmp_path, pickled):
    examples = io.BytesIO()
    with zipfile.ZipFile(examples, "w") as archive:
        for name, content in (("data.pkl", pickled), ("version", b"3\n"), ("byteorder", b"little")):
            archive.writestr(f"a/{name}", content)
    with zipfile.ZipFile(exported) as old, zipfile.ZipFile(tmp_path / "bad.pt2", "w") as new:
        for name in old.namelist():
            new.writestr(name, examples.getvalue() if name.endswith("/model.pt") else old.read(name))
    with pytest.raises(ValueError, match=r"that only computes, but it (calls|has keys)"):
        ProgramBackbone(tmp_path / "bad.pt2", (3, 8, 8))


HIDDEN = {
    "another name": 'f = torch.save\n    f(x, "mark")',
    "a name of a namespace": 'o = ops.aten\n    f = o.save\n    f(x, "mark")',
    "a line that goes on": 'torch.save\\\n(x, "mark")',
    "a comment": 'a = (torch.save # (\n(x, "mark"))',
    "white space": 'ops . aten . save(x, "mark")',
    "an attribute": 'f = getattr(torch, "save")\n    f(x, "mark")',
    "an attribute in two texts": 'f = getattr(torch, "sa" "ve")\n    f(x, "mark")',
    "an attribute in other signs": 'f = getattr(torch, "\\163ave")\n    f(x, "mark")',
    "an attribute in three quotes": "f = getattr(torch, '''save''')\n    f(x, 'mark')",
    "another way to attributes": 'g = getattr\n    f = g(torch, "\\163ave")\n    f(x, "mark")',
    "a class": "a : Optional[__torch__ . torch . classes . profiling.SourceStats] = None",
    "a namespace alone": "o = ops\n    f = o.image.write_file",
}


class _Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Linear(4, 4), nn.ModuleDict({"a-b": nn.ReLU()})["a-b"])

    def forward(self, x):
        if x.shape[1] != 4:
            raise ValueError("Wrong size # to save.  Load \\ another, it's (torch.save) .")
        return self.block(x)


def test_names_in_torchscript_are_found_however_they_are_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.jit.script(_Named()).save("plain.pt")
    assert ProgramBackbone("plain.pt", (4,)).feature_dim == 4
    for code in HIDDEN.values():
        with zipfile.ZipFile("plain.pt") as old, zipfile.ZipFile("bad.pt", "w") as new:
            for member in old.infolist():
                content = old.read(member)
                if b"class _Named" in content:
                    content = content.replace(b"-> Tensor:\n", b"-> Tensor:\n    " + code.encode() + b"\n")
                new.writestr(member.filename, content)
        with pytest.raises(ValueError, match=r"its code (calls|hides|builds).*trust_program=True"):
            ProgramBackbone("bad.pt", (4,))
    assert not (tmp_path / "mark").exists()


def _specification(change):
    def rewrite(model):
        for entry in model["graph_module"]["module_call_graph"]:
            if entry["signature"]:
                entry["signature"]["in_spec"] = json.dumps(change(json.loads(entry["signature"]["in_spec"])))

    return rewrite


def _typed(kind, context):
    def change(specification):
        specification[1]["children_spec"][0] |= {"type": kind, "context": json.dumps(context)}
        return specification

    return change


def _first_node(**changes):
    def change(model):
        node = model["graph_module"]["graph"]["nodes"][0]
        node.update({name: value for name, value in changes.items() if name != "argument"})
        node["inputs"][0] |= {"name": changes["argument"]} if "argument" in changes else {}

    return change


def _constant(text):
    def change(model):
        signature = model["graph_module"]["signature"]["input_specs"]
        signature.append({"constant_input": {"name": "x", "value": {"as_string": text}}})

    return change


MORE_ATTACKS = {
    "an enumeration": _specification(_typed("builtins.tuple", {"__enum__": True, "fqn": "evil:E", "name": "A"})),
    "a factory": _specification(_typed("collections.defaultdict", {"default_factory_module": "evil"})),
    "a named tuple": _specification(_typed("collections.namedtuple", "evil.Point")),
    "a key that is code": _specification(_typed("builtins.dict", ["x'] or open('{mark}', 'w') or L['x"])),
    "a keyword that is code": _first_node(argument="input=open('{mark}', 'w'), x"),
    "a node that is code": _first_node(name="x = open('{mark}', 'w')\ny"),
    "a module that is code": _first_node(metadata={"nn_module_stack": 'L__self__,a") or open("{mark}", "w") or ("'}),
    "a constant that is code": _constant("x' or open('{mark}', 'w') or '"),
    "an attribute of a namespace": _operation("torch.ops.aten.__class__.mro"),
    "an attribute of an operation": _operation("torch.ops.aten.add.__init__"),
    "another module": _operation("torch.os.system"),
    "an extension": _operation("#evil:op"),
    "a symbol that is code": lambda model: model["range_constraints"].update({"open('{mark}', 'w')": {}}),
}


@pytest.mark.parametrize("attack", MORE_ATTACKS)
def test_what_pytorch_would_import_or_compile_is_refused(exported, tmp_path, attack):
    path = _rewrite(exported, tmp_path / "trap.pt2", MORE_ATTACKS[attack])
    with pytest.raises(ValueError, match=r"that only computes, but .*trust_program=True"):
        ProgramBackbone(path, (3, 8, 8))


def test_tensors_that_the_file_does_not_hold_are_refused(exported, tmp_path):
    with zipfile.ZipFile(exported) as old, zipfile.ZipFile(tmp_path / "trap.pt2", "w") as new:
        for member in old.infolist():
            content = old.read(member)
            if member.filename.endswith("weights_config.json"):
                description = json.loads(content)
                entry = next(iter(description["config"].values()))
                entry["tensor_meta"]["sizes"] = [{"as_int": 2**40}]
                empty = entry["path_name"]
                content = json.dumps(description).encode()
            new.writestr(member.filename, content)
    with zipfile.ZipFile(tmp_path / "trap.pt2") as old, zipfile.ZipFile(tmp_path / "bomb.pt2", "w") as new:
        for member in old.infolist():
            new.writestr(member.filename, b"" if member.filename.endswith(empty) else old.read(member))
    with pytest.raises(ValueError, match="claims tensors that it does not hold"):
        ProgramBackbone(tmp_path / "bomb.pt2", (3, 8, 8))


def test_archives_that_readers_may_see_differently_are_refused(exported, tmp_path):
    whole = exported.read_bytes()
    for content in (b"x" + whole, whole + b"x", whole + whole, whole[:-2] + b"\1\0x"):
        (tmp_path / "trap.pt2").write_bytes(content)
        with pytest.raises(ValueError, match=r"trap\.pt2"):
            ProgramBackbone(tmp_path / "trap.pt2", (3, 8, 8))


def test_a_member_that_unpacks_to_much_is_refused(tmp_path):
    torch.jit.script(nn.ReLU()).save(tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as old,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for member in old.infolist():
            new.writestr(member.filename, old.read(member) + b"\n" * 2**27 * member.filename.endswith(".py"))
    with pytest.raises(ValueError, match="much larger than the file"):
        ProgramBackbone(tmp_path / "bomb.pt", (4,))


@pytest.mark.parametrize(
    "content",
    [b"c__torch__.torch\nclasses.c10d.Store\n.", b"cos\nsystem\n.", b"\x80\x04\x8c\x02os\x8c\x06system\x93.", b"\xff"],
)
def test_objects_in_torchscript_are_of_known_types(tmp_path, content):
    torch.jit.script(nn.ReLU()).save(tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as old, zipfile.ZipFile(tmp_path / "bad.pt", "w") as new:
        for member in old.infolist():
            new.writestr(member.filename, content if member.filename.endswith("/data.pkl") else old.read(member))
    with pytest.raises(ValueError, match="trust_program=True"):
        ProgramBackbone(tmp_path / "bad.pt", (4,))
