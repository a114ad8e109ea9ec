"""The readers of the source tree complain about small bad samples: a checker that cannot fail checks nothing."""

from __future__ import annotations

import ast
from textwrap import dedent

import pytest

from house import architecture as arch

MODULES = frozenset({"lamella.data.read", "lamella.nn.dense", "lamella.models.dpa3", "lamella.use.predict", "lamella.types"})


def violations(text: str, importer: str) -> list[str]:
    return arch.floor_violations(arch.imports(dedent(text), importer, MODULES))


@pytest.mark.parametrize(
    ("text", "importer"),
    [
        ("from lamella.use.predict import predict", "lamella.models.dpa3"),
        ("import lamella.use.predict", "lamella.models.dpa3"),
        ("from lamella.use import predict", "lamella.models.dpa3"),
        ("def f():\n    from lamella.use.predict import predict", "lamella.models.dpa3"),
        ("from lamella.nn.dense import Dense", "lamella.data.read"),
        ("from lamella.data.read import iter_frames", "lamella.types"),
        ("from lamella.drawer import x", "lamella.types"),
    ],
)
def test_wrong_floor_is_seen(text, importer):
    assert len(violations(text, importer)) == 1


@pytest.mark.parametrize(
    ("text", "importer"),
    [
        ("from lamella.nn.dense import Dense", "lamella.models.dpa3"),
        ("from lamella.models import dpa3", "lamella.models.potential"),
        (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from lamella.use.predict import predict",
            "lamella.types",
        ),
    ],
)
def test_right_floor_passes(text, importer):
    assert violations(text, importer) == []


def test_cycle_is_seen():
    assert arch.cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert arch.cycles({"a": {"b"}, "b": {"c"}, "c": set()}) == []


def first_function(text: str) -> tuple[ast.FunctionDef | ast.AsyncFunctionDef, bool]:
    return next(arch.functions(dedent(text)))


def test_length_of_a_function_leaves_out_its_docstring():
    node, _ = first_function('def f():\n    """One\n\n    two.\n    """\n    return 1\n')
    assert arch.code_length(node) == 2


def test_parameters_are_counted_without_self():
    node, method = first_function("class A:\n    def f(self, a, *, b, c=1): ...\n")
    assert arch.parameter_count(node, method) == 3
    node, method = first_function("class A:\n    @staticmethod\n    def f(a, b): ...\n")
    assert arch.parameter_count(node, method) == 2


def test_missing_docstrings_are_seen():
    text = 'class A:\n    """Yes."""\n    def f(self): ...\n    def _g(self): ...\ndef h():\n    """Yes."""\ndef i(): ...\n'
    assert arch.undocumented(text) == ["3: A.f", "7: i"]


@pytest.mark.parametrize(
    "text",
    [
        "register()",
        "import os\nDEVICE = os.environ.get('DEVICE')",
        "import torch\nDEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'",
        "for x in range(3):\n    pass",
        "with open('x') as f:\n    pass",
    ],
)
def test_effects_at_import_are_seen(text):
    assert arch.effects_at_import(text)


def test_quiet_module_passes():
    text = (
        '"""Doc."""\nimport os\nX = 1\n"""Of X."""\ndef f():\n    return os.environ\nif __name__ == "__main__":\n    f()\n'
    )
    assert arch.effects_at_import(text) == []


def test_calls_and_pass_through_are_seen():
    assert arch.calls_of("def f(x):\n    return hasattr(x, 'y')", frozenset({"hasattr"})) == [(2, "hasattr")]
    assert arch.keyword_pass_through("def f(**options):\n    return g(1, **options)") == [1]
    assert arch.keyword_pass_through("def f(**info: float):\n    return dict(info)") == []
    assert arch.third_party("import numpy.linalg\nfrom ase.io import read\nfrom lamella import load") == {"numpy", "ase"}
