"""Readers of the source tree for the house tests: what imports what, how long things are, which words are used.

Each reader takes source text, so that the tests can feed it small bad samples and see it complain.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

FLOORS: Mapping[str, int] = {
    "allocator": 0, "units": 0, "errors": 0, "fields": 0, "types": 0,
    "datasets": 1, "geometry": 1, "remote": 1,
    "data": 2, "nn": 2,
    "models": 3,
    "compiled": 4, "formats": 4,
    "train": 5,
    "use": 6,
    "loop": 7,
    "engines": 7,
    "config": 8, "cli": 8, "__main__": 9,
}  # fmt: skip
"""Floor of each top-level name of the package; imports go down or stay under the same name."""

NEIGHBOURS: frozenset[frozenset[str]] = frozenset(
    {
        frozenset({"units", "fields"}),
        frozenset({"fields", "types"}),
        frozenset({"errors", "fields"}),
        frozenset({"errors", "types"}),
    }
)
"""Names of one floor that may import each other: the words at the bottom. Cycles are refused separately."""

FORBIDDEN_NAMES = frozenset({"utils", "util", "common", "helpers", "helper", "tools", "misc"})


@dataclass(frozen=True)
class Import:
    """One import of a lamella module: who, whom, on which line, whether inside a function."""

    importer: str
    imported: str
    line: int
    inside_function: bool


def module_name(path: Path, source_root: Path) -> str:
    """``src/lamella/nn/dense.py`` -> ``lamella.nn.dense``."""
    parts = path.relative_to(source_root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(text: str, importer: str, modules: frozenset[str], package: str = "lamella") -> list[Import]:
    """Imports of the package's own modules, also inside functions; those for type checkers only are left out."""
    found: list[Import] = []

    def visit(node: ast.AST, inside: bool) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            return
        if isinstance(node, ast.Import):
            found.extend(
                Import(importer, name.name, node.lineno, inside) for name in node.names if name.name.split(".")[0] == package
            )
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module and node.module.split(".")[0] == package:
            for name in node.names:
                target = f"{node.module}.{name.name}"
                found.append(Import(importer, target if target in modules else node.module, node.lineno, inside))
        deeper = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, deeper)

    visit(ast.parse(text), False)
    return found


def top_name(module: str) -> str:
    """``lamella.nn.dense`` -> ``nn``; the package itself -> empty."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def floor_violations(found: list[Import]) -> list[str]:
    """Imports that go up, or sideways between neighbours that must not know each other."""
    complaints = []
    for each in found:
        lower, upper = top_name(each.imported), top_name(each.importer)
        if upper == lower or not lower or not upper:
            continue
        unknown = [name for name in (lower, upper) if name not in FLOORS]
        if unknown:
            complaints.append(f"{each.importer}:{each.line}: {unknown[0]} has no floor in tests/house/architecture.py")
        elif FLOORS[lower] > FLOORS[upper]:
            complaints.append(f"{each.importer}:{each.line}: imports {each.imported}, which is upstairs")
        elif FLOORS[lower] == FLOORS[upper] and frozenset({lower, upper}) not in NEIGHBOURS:
            complaints.append(f"{each.importer}:{each.line}: imports its neighbour {each.imported}")
    return complaints


def cycles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other in a circle (strongly connected components)."""
    reach: dict[str, set[str]] = {}
    for start in edges:
        seen: set[str] = set()
        stack = [start]
        while stack:
            for following in edges.get(stack.pop(), ()):
                if following not in seen:
                    seen.add(following)
                    stack.append(following)
        reach[start] = seen
    groups = {
        tuple(sorted(other for other in reach if other in reach[start] and start in reach[other]))
        for start in reach
        if start in reach[start]
    }
    return [list(group) for group in sorted(groups)]


def functions(text: str) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, bool]]:
    """Every function with whether it is a method."""

    def visit(node: ast.AST, in_class: bool) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield child, in_class
            yield from visit(child, isinstance(child, ast.ClassDef))

    yield from visit(ast.parse(text), False)


def code_length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function from ``def`` to its end, its docstring not counted."""
    total = (node.end_lineno or node.lineno) - node.lineno + 1
    first = node.body[0]
    if ast.get_docstring(node, clean=False) is not None:
        total -= (first.end_lineno or first.lineno) - first.lineno + 1
    return total


def parameter_count(node: ast.FunctionDef | ast.AsyncFunctionDef, method: bool) -> int:
    """Parameters a caller gives: ``self`` and ``cls`` do not count."""
    arguments = node.args
    count = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
    static = any(isinstance(mark, ast.Name) and mark.id == "staticmethod" for mark in node.decorator_list)
    return count - (1 if method and not static else 0)


def calls_of(text: str, names: frozenset[str]) -> list[tuple[int, str]]:
    """Calls of plain names: (line, name)."""
    return [
        (node.lineno, node.func.id)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names
    ]


def undocumented(text: str) -> list[str]:
    """Public functions, classes and methods without a docstring; names with an underscore are private."""
    missing = []

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            if ast.get_docstring(node) is None:
                missing.append(f"{node.lineno}: {prefix}{node.name}")
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{prefix}{node.name}.")

    visit(ast.parse(text).body, "")
    return missing


def keyword_pass_through(text: str) -> list[int]:
    """Lines of functions that accept ``**anything`` and hand it on to another call."""

    def hands_on(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
        name = node.args.kwarg.arg if node.args.kwarg else None
        return name is not None and any(
            isinstance(word, ast.keyword) and word.arg is None and isinstance(word.value, ast.Name) and word.value.id == name
            for word in ast.walk(node)
        )

    return [node.lineno for node, _ in functions(text) if hands_on(node)]


_INERT = (
    ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef,
    ast.Assign, ast.AnnAssign, ast.AugAssign, ast.If, ast.Pass, ast.Assert,
)  # fmt: skip


def effects_at_import(text: str) -> list[str]:
    """Module-level statements that do something: bare calls, loops, ``with``; reads of the environment, a device choice."""
    complaints = []
    tree = ast.parse(text)
    for node in tree.body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        main_guard = isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)
        if main_guard:
            continue
        if not isinstance(node, _INERT) and not docstring:
            complaints.append(f"{node.lineno}: {ast.unparse(node).splitlines()[0]}")
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        for inner in ast.walk(node):
            word = ast.unparse(inner) if isinstance(inner, ast.Attribute) else ""
            if word in ("os.environ", "os.getenv", "torch.cuda.is_available", "torch.set_num_threads"):
                complaints.append(f"{inner.lineno}: {word}")
    return complaints


def third_party(text: str) -> set[str]:
    """Top-level names of everything imported that is not the package itself."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {name.name.split(".")[0] for name in node.names}
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names - {"lamella", "__future__"}
