"""How the package imports itself; who may import whom is import-linter's to check."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator

from house.package import PACKAGE, sources

HEAVY = (
    "anyio",
    "grpc",
    "httpx",
    "msgspec",
    "prometheus_client",
    "pydantic",
    "rich",
    "starlette",
    "torch",
    "transformers",
    "typer",
    "uvicorn",
    "uvloop",
    "xllamacpp",
)


def imports_of_the_root(tree: ast.Module) -> Iterator[int]:
    """Yield the lines that import the root package or something defined in it, or import relatively."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and any(name.name == "penstock" for name in node.names):
            yield node.lineno
        elif isinstance(node, ast.ImportFrom):
            of_root = node.module == "penstock" and not all(is_room(name.name) for name in node.names)
            if of_root or node.level:
                yield node.lineno


def is_room(name: str) -> bool:
    return (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()


def test_nobody_imports_the_root_package() -> None:
    found = {path: list(imports_of_the_root(tree)) for path, tree in sources().items()}
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_the_check_sees_what_it_must() -> None:
    refused = "import penstock\nfrom penstock import App\nfrom . import errors\nimport os, penstock as p\n"
    allowed = "from penstock import engines\nfrom penstock.errors import CallError\nimport penstock.errors\n"
    assert list(imports_of_the_root(ast.parse(refused))) == [1, 2, 3, 4]
    assert list(imports_of_the_root(ast.parse(allowed))) == []


def test_importing_penstock_loads_nothing_heavy() -> None:
    code = f"import sys, penstock; print(*[name for name in {HEAVY} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []
