"""The tail is what makes code unreadable: longest file, longest function, most parameters."""

from __future__ import annotations

from house import architecture as arch
from house.tree import PACKAGE, SOURCE, sources

FILE_LINES = 400
FUNCTION_LINES = 60
PARAMETERS = 8
DATA_BYTES = 5_000_000


def test_files_are_short():
    long = {name: text.count("\n") for name, text in sources().items() if text.count("\n") > FILE_LINES}
    assert not long, f"more than {FILE_LINES} lines: {long}"


def test_functions_are_short():
    long = [
        f"{name}.{node.name}: {arch.code_length(node)}"
        for name, text in sources().items()
        for node, _ in arch.functions(text)
        if arch.code_length(node) > FUNCTION_LINES
    ]
    assert not long, f"more than {FUNCTION_LINES} lines without docstring: {long}"


def test_functions_take_few_parameters():
    # The parameters of a command are its options: a person reads them in --help, one a line.
    greedy = [
        f"{name}.{node.name}: {arch.parameter_count(node, method)}"
        for name, text in sources().items()
        if arch.top_name(name) != "cli"
        for node, method in arch.functions(text)
        if arch.parameter_count(node, method) > PARAMETERS
    ]
    assert not greedy, f"more than {PARAMETERS} parameters: {greedy}"


def test_embedded_data_is_small():
    files = [
        path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts
    ]
    total = sum(path.stat().st_size for path in files)
    assert total <= DATA_BYTES, f"{total} bytes: " + ", ".join(str(path.relative_to(SOURCE)) for path in files)
