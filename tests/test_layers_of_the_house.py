"""Who may import whom, and what is kept in one place: read from the sources, nothing is run."""

import ast
import importlib
import re
import sys
from pathlib import Path

import pytest

from fastrnn.kinds import KINDS

PACKAGE = Path(__file__).parent.parent / "fastrnn"

# A file imports only from files above it; a folder stands for the files in it, which may import each other.
ORDER = [
    "kernels",
    "kernels.target",
    "kernels.cache",
    "kernels.jit",
    "kernels.simd",
    "kernels.pointers",
    "kernels.workspace",
    "kernels.parallel",
    "kernels.vmath",
    "kernels.reduce",
    "kernels.tile",
    "kernels.pack",
    "kernels.matmul",
    "kernels.frame",
    "kernels.inputs",
    "kernels.cells",
    "kernels.sums",
    "kernels.stages",
    "kernels.sequence",
    "kernels.embedding",
    "kernels.packed",
    "kernels.gradients",
    "kernels.recurrent",
    "kernels.step",
    "kernels.forest",
    "kernels.levels",
    "kernels.recursive",
    "kernels.loss",
    "kernels.attention",
    "kernels.time_delay",
    "kernels.update",
    "reference",
    "checks",
    "kinds",
    "memory",
    "ragged",
    "trees",
    "parameters",
    "wiring",
    "threads",
    "functional",
    "flow",
    "layers",
    "exchange",
    "keras",
    "gradcheck",
    "optim",
    "loss",
    "checkpoint",
    "models",
    "onnx",
    "training",
    "torch",
    "plot",
    "examples",
    "fastrnn",
    "cli",
    "__main__",
]

COMPILERS = {"njit", "jit", "cfunc", "vectorize", "guvectorize", "stencil", "register_jitable", "generated_jit"}
ALLOCATORS = {"empty", "zeros", "ones", "full", "array", "empty_like", "zeros_like", "ones_like", "full_like", "arange"}


# What a new kind of recurrent cell is written into, besides its own two files.
NEW_CELL = {"kinds", "layers.recurrent", "layers", "fastrnn"}
# Who names kinds of cells, and is left alone by a new one.
NAMING = {
    "functional.recursive": "the cells that are taken over trees",
    "kernels.cells.tree": "their nodes",
    "reference.recursive": "the same",
    "torch": "torch's modules",
    "torch.modules": "the same",
    "keras": "Keras' RNN, which is a layer around any cell",
    "examples.networks": "a user",
}
OWN = {tag.__module__.removeprefix("fastrnn.") for tag in KINDS if tag.__module__.startswith("fastrnn.")}
OWN |= {name.replace("kernels", "reference") for name in OWN}


def name_of(path):
    """The module's name below fastrnn; fastrnn for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__") or "fastrnn"


SOURCES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in SOURCES.items()}


def imports(tree):
    """Every module that is imported, also within functions, as a full name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole.removeprefix("fastrnn.") in SOURCES else node.module


def own(tree):
    """The files of fastrnn among the imports."""
    for name in imports(tree):
        if name.split(".")[0] == "fastrnn":
            yield name.removeprefix("fastrnn.")


def place(name):
    """A file's place in ORDER: its own, or that of the folder that holds it."""
    while name not in ORDER:
        assert "." in name, f"{name} has no place in ORDER"
        name = name.rpartition(".")[0]
    return name


def numpy_calls(tree):
    """The names of NumPy's functions that are called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            value = node.func.value
            if isinstance(value, ast.Name) and value.id == "np":
                yield node.func.attr


def test_the_order_names_files_that_exist():
    assert set(ORDER) <= set(SOURCES)
    assert len(set(ORDER)) == len(ORDER)


@pytest.mark.parametrize("name", SOURCES)
def test_a_file_imports_from_above(name):
    for imported in own(TREES[name]):
        below, above = place(name), place(imported)
        assert below == above or ORDER.index(above) < ORDER.index(below), f"{name} imports {imported}"


def test_the_rule_sees_a_breach():
    (imported,) = own(ast.parse("def f():\n    from fastrnn import layers"))
    assert ORDER.index(place(imported)) > ORDER.index(place("kernels.tile"))
    assert list(own(ast.parse("from fastrnn.kernels import pack, tile"))) == ["kernels.pack", "kernels.tile"]
    assert list(own(ast.parse("from fastrnn.kernels.tile import tile"))) == ["kernels.tile"]
    with pytest.raises(AssertionError, match="stray has no place"):
        place("stray")


@pytest.mark.parametrize("name", [name for name in SOURCES if name.split(".")[0] == "reference"])
def test_the_reference_is_numpy_alone(name):
    for imported in imports(TREES[name]):
        top = imported.split(".")[0]
        assert top == "numpy" or top in sys.stdlib_module_names or imported.startswith("fastrnn.reference")


def test_nobody_computes_with_the_reference():
    for name, tree in TREES.items():
        if name.split(".")[0] != "reference":
            assert not [imported for imported in own(tree) if imported.startswith("reference")], name


def test_numba_stays_in_the_kernels():
    """But for the number of threads, which is Numba's."""
    outside = {name for name, tree in TREES.items() if any(i.split(".")[0] == "numba" for i in imports(tree))}
    assert {name for name in outside if not name.startswith("kernels.")} <= {"threads"}


def test_one_file_compiles():
    for name, tree in TREES.items():
        if name != "kernels.jit":
            words = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
            words |= {
                alias.name
                for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom)
                if node.module.split(".")[0] == "numba"
                for alias in node.names
            }
            assert not words & COMPILERS, name
            assert "prange" not in words, f"{name}: parallel regions are kernels.parallel's"


def test_no_fast_mathematics():
    for name, path in SOURCES.items():
        assert "fastmath" not in path.read_text(), name


@pytest.mark.parametrize("name", [name for name in SOURCES if name.startswith("kernels.")])
def test_kernels_do_not_allocate(name):
    assert not ALLOCATORS & set(numpy_calls(TREES[name]))


@pytest.mark.parametrize("name", [name for name in SOURCES if name.startswith("kernels.")])
def test_kernels_do_not_raise(name):
    """What raises there runs in Python only: the choice of a target, a compiler switched off, overloads' stand-ins."""
    allowed = {
        "kernels.target": {"ImportError"},
        "kernels.jit": {"RuntimeError"},
        "kernels.cells": {"ValueError"},
        "kernels.cells.shape": {"NotImplementedError"},
    }
    raised = {node.exc.func.id for node in ast.walk(TREES[name]) if isinstance(node, ast.Raise)}
    assert raised <= allowed.get(name, set())
    assert not any(isinstance(node, ast.Assert) for node in ast.walk(TREES[name]))


def test_twins_exist():
    """What docstrings name as a reference twin can be found."""
    named = {
        twin for path in SOURCES.values() for twin in re.findall(r"fastrnn\.reference(?:\.\w+)+", path.read_text())
    }
    assert len(named) > 5
    for twin in named:
        module, attribute = twin, None
        if module.removeprefix("fastrnn.") not in SOURCES:
            module, _, attribute = twin.rpartition(".")
        found = importlib.import_module(module)
        assert attribute is None or hasattr(found, attribute), twin


@pytest.mark.parametrize("name", SOURCES)
def test_files_say_what_they_are(name):
    assert ast.get_docstring(TREES[name])


def arguments(tree):
    """The number of arguments of each function, but for constructors, by its name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            names = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            yield getattr(node, "name", "lambda"), len(names) - (names[:1] == ["self"])


# What takes more than twelve arguments, and why.
TRAINS = {
    "kernels.tile.tile": "the tile's own call: what a function of LLVM takes are numbers",
    "kernels.tile._tile_float32": "the same",
    "kernels.tile._tile_float64": "the same",
    "kernels.recurrent.recurrent_forward": "Python calls it: groups would cost 2.5 us there, names do for the reader",
    "kernels.recurrent.recurrent_backward": "the same",
}


def test_no_function_takes_a_train_of_arguments():
    found = {
        f"{module}.{name}"
        for module, tree in TREES.items()
        for name, count in arguments(tree)
        if count > 12 and name != "__init__"
    }
    assert found == TRAINS.keys()


def test_arguments_are_counted():
    tree = ast.parse("class A:\n    def f(self, a, /, b, *, c): ...\nlambda x, y: 0\ndef g(): ...")
    assert sorted(arguments(tree)) == [("f", 3), ("g", 0), ("lambda", 2)]


def cells_named(tree):
    """The kinds of cells that a file names in its code; tanh and relu are functions, too, and a default is no list."""
    words = {word for k in KINDS.values() for word in (k.name, k.layer_name, f"{k.layer_name}Cell")}
    words |= {tag.__name__ for k in KINDS.values() for tag in (k.tag, k.weighted) if tag}
    nodes, prose = [*ast.walk(tree)], set()
    for node in nodes:
        if isinstance(node, ast.Expr):
            prose.add(node.value)
        elif isinstance(node, ast.arguments):
            prose.update([*node.defaults, *node.kw_defaults])
        elif isinstance(node, ast.keyword) and node.arg in ("cell", "default"):
            prose.add(node.value)
    found = {node.value for node in nodes if isinstance(node, ast.Constant) and node not in prose}
    for kind, attribute in ((ast.Name, "id"), (ast.Attribute, "attr"), (ast.ClassDef, "name"), (ast.alias, "name")):
        found |= {getattr(node, attribute) for node in nodes if isinstance(node, kind)}
    return found & words - {"", "tanh", "relu"}


def test_a_new_cell_is_written_into_few_files():
    """All others read the table."""
    assert len(NEW_CELL) <= 4
    found = {name for name, tree in TREES.items() if cells_named(tree)}
    assert found == NEW_CELL | NAMING.keys() | OWN


def test_lists_of_cells_are_seen():
    for text in ('CELLS = {"gru": 3}', "from fastrnn.layers import LSTM", "isinstance(layer, fastrnn.LSTM)"):
        assert len(cells_named(ast.parse(text))) == 1
    for text in ('"""LSTM"""', 'def build(cell: str = "lstm"): """LSTM"""', 'build(cell="lstm")', "np.tanh(x)"):
        assert not cells_named(ast.parse(text))
