"""What a program file may hold: members, operations and expressions that cannot run code of the file's author.

PyTorch's own loaders do more than read tensors: expressions in ``models/*.json`` are evaluated, compiled libraries are
opened, objects are unpickled, guards are compiled, and TorchScript may write files.
"""

from __future__ import annotations

import ast
import json
import pickletools
import re
import zipfile
from collections.abc import Iterator
from io import BytesIO
from typing import Any

from lightning_transfer.backbones.pickles import check_checkpoint, is_whole

_EXPORTED_MEMBERS = re.compile(
    r"(archive_format|archive_version|byteorder|version|\.format_version|\.data/(version|serialization_id)"
    r"|models/[\w.-]+\.json|data/(weights|constants)/(weight_\d+|tensor_\d+|[\w.-]+_config\.json)"
    r"|data/sample_inputs/[\w.-]+\.pt"
    r"|serialized_(exported_program\.json|state_dict\.(pt|json)|constants\.(pt|json)|example_inputs\.pt))"
)
_SCRIPT_MEMBERS = re.compile(
    r"(version|byteorder|constants\.pkl|data\.pkl|(traced_inputs|bytecode)\.pkl|\.data/(version|serialization_id)"
    r"|(data|constants|traced_inputs)/\d+|code/[\w./<>-]+\.py(\.debug_pkl)?|attributes\.pkl)"
)
_OPERATIONS = re.compile(
    r"torch\.ops\.(aten|prims|quantized|quantized_decomposed|torchvision)\.(?!from_file|save|_?load)(?!__(?!r?(and|or|xor|lshift|rshift)__|i\w+__))"
    r"\w+(\.(?!_)\w+)?"
    r"|torch\.ops\.higher_order\.(cond|while_loop|map_impl|scan|associative_scan|wrap_with_set_grad_enabled"
    r"|wrap_with_autocast|flex_attention|strict_mode|checkpoint|tag_activation_checkpoint)"
    r"|_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|neg|pos|pow|eq|ne|lt|le|gt|ge|and_|or_|not_|index)"
    r"|math\.(ceil|floor|trunc|sqrt)|torch\.(sym_|_sym_|_check)\w*"
)
_FUNCTIONS = frozenset((
    "Add", "Mul", "Rational", "Abs", "Symbol", "Integer", "Float", "Max", "Min", "Mod", "PythonMod", "FloorDiv",
    "ModularIndexing", "CleanDiv", "CeilDiv", "CeilToInt", "FloorToInt", "IntTrueDiv", "FloatTrueDiv", "TruncToInt",
    "TruncToFloat", "RoundToInt", "RoundDecimal", "ToFloat", "Where", "Pow", "PowByNatural", "FloatPow", "Eq", "Ne",
    "Lt", "Le", "Gt", "Ge", "Equality", "Unequality", "StrictLessThan", "LessThan", "StrictGreaterThan",
    "GreaterThan", "And", "Or", "Not", "Identity", "Piecewise", "floor", "ceiling", "LShift", "RShift",
))  # fmt: skip
_QUESTIONS = frozenset(
    ("size", "stride", "dim", "ndim", "shape", "dtype", "device", "numel", "storage_offset", "is_cuda")
)
_PLAIN = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Name, ast.Load, ast.Tuple, ast.List,
    ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
)  # fmt: skip
_CODE_NAMES = re.compile(r"[\w.:]*")  # what becomes names and attributes in code that PyTorch writes and compiles
_TEXT = re.compile(r"[\w.,:;/+<>=@$#|()\[\]{}% *-]*")  # what stands between quotes there
_STACK = re.compile(r"[\w.,:;@$<>()\[\]' *-]*")  # of modules
_SPECIFICATIONS = ("in_spec", "out_spec")
_TREES = (None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict")
_PICKLED = re.compile(r"(collections|torch|torch\._utils|torch\.jit\._pickle|__torch__)[. ][\w. <>]*")
_LONGEST_EXPRESSION = 20_000
_LARGEST_POWER = 16
_UNPACKED = 2**26  # bytes that small compressed members may come to
_SCRIPT_WRITES = re.compile(r"\b(save|from_file|rpc_\w+|_?load\w*(?=\())")
_SCRIPT_OPS = re.compile(r"(?<![\w.])ops\b(?!\.(?:prim|aten|quantized|torchvision)\.)[\w.]*")
_SCRIPT_STRINGS = re.compile(
    r'"""(?:\\.|(?!""")[^\\])*"""|\'\'\'(?:\\.|(?!\'\'\')[^\\])*\'\'\'|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'',
    re.DOTALL,
)
_SCRIPT_NAMES = re.compile(r'"[\w.+:/-]{1,99}"')  # of attributes that are no identifiers, as in `getattr(self, "0")`
_SCRIPT_GETATTR = re.compile(r'\bgetattr\(([\w.()\[\]]{0,999}), "([^"]+)"\)')
_SCRIPT_PARTED = re.compile(r"[#\\]|\s\.|(?:\b[A-Za-z_]\w*|[)\]])\.\s")
_MOST_NESTED = 9
_SCRIPT_LIBRARIES = ("quantized", "xnnpack")
_SCRIPT_CLASSES = re.compile(r"__torch__\.torch\.classes\.(\w+)")


def check_exported(content: bytes) -> None:
    """Check a program of ``torch.export.save``.

    Args:
        content: The file.

    Raises:
        ValueError: If it may do more than compute with tensors; the message says what was found.
    """
    with _archive(content, _EXPORTED_MEMBERS) as archive:
        for member in archive.infolist():
            if member.filename.endswith(".json"):
                description = json.loads(archive.read(member))
                for kind, value in _statements(description):
                    _check_statement(kind, value)
                _check_texts(description)
            if member.filename.endswith(".pt"):
                inner = archive.read(member)
                check_checkpoint(BytesIO(inner), len(inner))
            if member.filename.endswith("_config.json"):
                _check_sizes(
                    description, {entry.filename.rpartition("/")[2]: entry.file_size for entry in archive.infolist()}
                )


def check_script(content: bytes) -> None:
    """Check a TorchScript file.

    Args:
        content: The file.

    Raises:
        ValueError: If it may do more than compute with tensors; the message says what was found.
    """
    with _archive(content, _SCRIPT_MEMBERS) as archive:
        for member in archive.infolist():
            if member.filename.endswith("pkl"):
                _check_pickle(archive.read(member))
            if not member.filename.endswith(".py"):
                continue
            code = _plain_code(archive.read(member).decode())
            if writer := _SCRIPT_WRITES.search(code):
                raise ValueError(f"its code calls `{writer[1]}`")
            if operation := _SCRIPT_OPS.search(code):
                raise ValueError(f"its code calls `{operation[0]}`")
            for name in _SCRIPT_CLASSES.findall(code):
                if name not in _SCRIPT_LIBRARIES:
                    raise ValueError(f"its code builds objects of `torch.classes.{name}`")


def _plain_code(code: str) -> str:
    """TorchScript without its texts, in which every name is written as it is looked up.

    Raises:
        ValueError: If names are parted or put together, as PyTorch never writes them.
    """
    code = _SCRIPT_STRINGS.sub(lambda text: text[0] if _SCRIPT_NAMES.fullmatch(text[0]) else "''", code)
    for _ in range(_MOST_NESTED):
        code = _SCRIPT_GETATTR.sub(r"\1.\2", code)
    if parted := re.search(r"\bgetattr\b", code) or _SCRIPT_PARTED.search(code):
        raise ValueError(f"its code hides names by `{_short(parted[0]) or 'white space'}`")
    return code


def _archive(content: bytes, allowed: re.Pattern[str]) -> zipfile.ZipFile:
    """Open an archive all of whose members are known ones, below one folder and each there once."""
    try:
        archive = zipfile.ZipFile(BytesIO(content))
    except (zipfile.BadZipFile, ValueError, NotImplementedError, UnicodeDecodeError) as error:
        raise ValueError("it is no archive") from error
    if not is_whole(archive, BytesIO(content), len(content)):
        raise ValueError("it has something before, behind or between its members, so that readers may differ")
    if sum(member.file_size for member in archive.infolist()) > 2 * len(content) + _UNPACKED:
        raise ValueError("its members claim to be much larger than the file")
    names = [member.filename for member in archive.infolist()]
    folder = names[0].partition("/")[0] if names and all("/" in name for name in names) else ""
    seen: set[str] = set()
    for name in names:
        inner = name[len(folder) + 1 :] if folder else name
        if folder and name.partition("/")[0] != folder:
            raise ValueError(f"it has several folders, {folder!r} and that of {name!r}")
        if not allowed.fullmatch(inner) or ".." in inner:
            raise ValueError(f"it holds `{inner}`, which is no part of a program of tensors alone")
        if name.lower() in seen:
            raise ValueError(f"it holds `{inner}` twice")
        seen.add(name.lower())
    damaged = archive.testzip()  # PyTorch's reader leaves the checksums aside
    if damaged is not None:
        raise ValueError(f"its member `{_short(damaged)}` is damaged")
    return archive


def _statements(value: Any) -> Iterator[tuple[str, Any]]:
    """Whatever in a program's description the loader evaluates, resolves or compiles."""
    stack = [value]
    while stack:
        entry = stack.pop()
        if isinstance(entry, dict):
            for key, inner in entry.items():
                if key in ("expr_str", "guards_code", "as_operator", "as_custom_obj", "custom_obj") or (
                    key == "target" and "inputs" in entry
                ):
                    yield key, inner
            stack.extend(entry.values())
        elif isinstance(entry, list):
            stack.extend(entry)


def _check_statement(kind: str, value: Any) -> None:
    if kind in ("as_custom_obj", "custom_obj"):
        if value:
            raise ValueError("it holds objects of its author's classes")
    elif kind in ("target", "as_operator"):
        if not isinstance(value, str) or not _OPERATIONS.fullmatch(value):
            raise ValueError(f"it calls `{_short(value)}`")
    elif kind == "expr_str":
        _check_expression(value, guard=False)
    else:
        for guard in value or ():
            _check_expression(guard, guard=True)


def _check_texts(value: Any, key: str = "") -> None:
    """Names in the description become code that PyTorch writes and compiles: none may end where it is put."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if key == "range_constraints":
                _check_expression(name, guard=False)
            elif not _TEXT.fullmatch(name):
                raise ValueError(f"it has a name that is code, `{_short(name)}`")
            if name == "metadata":
                _check_metadata(inner)
            elif name in _SPECIFICATIONS and isinstance(inner, str):
                _check_tree(json.loads(inner))
            elif name not in ("expr_str", "guards_code", "target"):
                _check_texts(inner, name)
    elif isinstance(value, list):
        for inner in value:
            _check_texts(inner, key)
    elif isinstance(value, str) and not (_TEXT if key in ("as_string", "torch_version") else _CODE_NAMES).fullmatch(
        value
    ):
        raise ValueError(f"it has a name that is code, `{_short(value)}`")


def _check_metadata(metadata: Any) -> None:
    stack = metadata.get("nn_module_stack", "") if isinstance(metadata, dict) else ""
    if not isinstance(stack, str) or not _STACK.fullmatch(stack):
        raise ValueError(f"it has a name that is code, `{_short(stack)}`")


def _check_tree(specification: Any) -> None:
    """Inputs and outputs are tuples, lists and dicts: of other containers PyTorch would import the modules."""
    stack = [specification]
    while stack:
        entry = stack.pop()
        if isinstance(entry, list):
            stack.extend(entry)
        elif isinstance(entry, dict):
            kind = entry.get("type")
            if kind not in _TREES and "immutable_collections" not in str(kind):
                raise ValueError(f"its inputs or outputs are `{_short(kind)}`")
            context = entry.get("context")
            keys = json.loads(context) if isinstance(context, str) and context else context
            for name in keys if isinstance(keys, list) else [keys]:
                if not (
                    name is None or isinstance(name, int) or (isinstance(name, str) and _CODE_NAMES.fullmatch(name))
                ):
                    raise ValueError(f"its inputs or outputs are called `{_short(name)}`")
            stack.append(entry.get("children_spec", []))


def _check_sizes(description: Any, sizes_by_path: dict[str, int]) -> None:
    """A tensor without bytes in the file is one without elements."""
    for entry in description["config"].values():
        meta = entry.get("tensor_meta") or {}
        empty = not sizes_by_path.get(str(entry.get("path_name")))
        if entry.get("use_pickle"):
            raise ValueError("it holds pickled objects")
        if empty and not any(size.get("as_int") == 0 for size in meta.get("sizes", ())):
            raise ValueError("it claims tensors that it does not hold")


def _check_pickle(content: bytes) -> None:
    """TorchScript's own reader of pickles knows a few types, and classes that libraries register."""
    for operation, argument, _ in pickletools.genops(content):
        if operation.name in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"):
            raise ValueError(f"it pickles by {operation.name}")
        if operation.name == "GLOBAL":
            name = str(argument).replace(" ", ".")
            custom = _SCRIPT_CLASSES.match(name)
            if not _PICKLED.fullmatch(name) or (custom and custom[1] not in _SCRIPT_LIBRARIES):
                raise ValueError(f"it holds objects of `{_short(name)}`")


def _check_expression(text: Any, guard: bool) -> None:
    """Allow integers, symbols, arithmetic, comparisons and a few functions of them.

    Args:
        text: The expression.
        guard: Whether it may ask inputs for their size and the like, ``L['x'].size()[0]``, too.
    """
    try:
        if not isinstance(text, str) or len(text) > _LONGEST_EXPRESSION:
            raise ValueError("too long")
        for node in ast.walk(ast.parse(text.strip(), mode="eval")):
            if not _is_harmless(node, guard):
                raise ValueError(type(node).__name__)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"it would evaluate `{_short(text)}`") from error


def _is_harmless(node: ast.AST, guard: bool) -> bool:
    if isinstance(node, ast.Constant):
        value = node.value
        small = isinstance(value, (bool, float)) or (isinstance(value, int) and abs(value) < 2**64)
        return small or value is None or (isinstance(value, str) and re.fullmatch(r"[\w.]+", value) is not None)
    if isinstance(node, ast.Name):
        return not node.id.startswith("__")
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute):
            return guard and node.func.attr in _QUESTIONS
        if not isinstance(node.func, ast.Name):
            return False
        is_allowed = node.func.id in _FUNCTIONS or (guard and node.func.id in ("len", "int", "min", "max"))
        power = "Pow" in node.func.id or "Shift" in node.func.id
        return is_allowed and (not power or (len(node.args) == 2 and _is_small(node.args[1])))
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Pow, ast.LShift)):
        return _is_small(node.right)
    if isinstance(node, ast.Attribute):
        return guard and node.attr in _QUESTIONS
    if isinstance(node, (ast.Subscript, ast.Slice)):
        return guard
    return isinstance(node, (ast.keyword, *_PLAIN))


def _is_small(node: ast.AST) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Integer" and node.args:
        node = node.args[0]
    value = node.operand if isinstance(node, ast.UnaryOp) else node
    return isinstance(value, ast.Constant) and isinstance(value.value, int) and abs(value.value) <= _LARGEST_POWER


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) < 60 else text[:57] + "..."
