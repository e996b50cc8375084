"""Prints what breaks the rules of the tree, one fault a line; exit status 1 if there is any.

Rules: a file has at most 400 lines and a package at most 12 modules; a module's name is said once
in a program; modules that decide have a test of their own name. Standard library only.
"""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("yolopool", "control_plane", "worker", "importer")
GENERATED = ("yolopool/v1", "yolopool/kserve")
MAX_LINES, MAX_MODULES = 400, 12
# Both sides of one message have its name.
MESSAGE_SIDES = {"control_plane/convert", "control_plane/services", "control_plane/gateway/rest"}
# Packages that are alternatives of each other, file by file.
ALTERNATIVES = (
    {"worker/backends/onnx", "worker/backends/pytorch"},
    {"importer/onnx_import", "importer/torch_import"},
)
TESTED = (
    "control_plane/scheduling",
    "control_plane/types",
    "worker/batching",
    "worker/postprocess",
)
# A function decides if it has one of these, but for `if ...: raise`, which validates a record.
DECISIONS = (ast.If, ast.While, ast.Match)


def modules(root: Path, program: str) -> list[Path]:
    """The written modules of a program, relative to the repository."""
    found = (path.relative_to(root) for path in sorted((root / program).rglob("*.py")))
    return [path for path in found if path.parent.as_posix() not in GENERATED]


def is_named(path: Path) -> bool:
    return not path.name.startswith("__")


def too_long(root: Path, paths: list[Path]) -> Iterator[str]:
    for path in paths:
        lines = len((root / path).read_text().splitlines())
        if lines > MAX_LINES:
            yield f"{path} has {lines} lines, more than {MAX_LINES}: carve a noun out of it"


def too_full(paths: list[Path]) -> Iterator[str]:
    packages = defaultdict[Path, int](int)
    for path in filter(is_named, paths):
        packages[path.parent] += 1
    for package, count in packages.items():
        if count > MAX_MODULES:
            yield f"{package} has {count} modules, more than {MAX_MODULES}: give some a package"


def named_twice(paths: list[Path]) -> Iterator[str]:
    places = defaultdict[str, list[Path]](list)
    for path in filter(is_named, paths):
        places[path.name].append(path)
    for same in places.values():
        packages = {path.parent.as_posix() for path in same}
        allowed = any(packages <= group for group in (MESSAGE_SIDES, *ALTERNATIVES))
        if len(same) > 1 and not allowed:
            yield f"{' and '.join(map(str, same))} have one name: call one by what differs"


def untested(root: Path, paths: list[Path]) -> Iterator[str]:
    for path in filter(is_named, paths):
        if path.parent.as_posix() not in TESTED:
            continue
        test = Path("tests/unit") / path.parent / f"test_{path.name}"
        # What calls libraries, too, is tested with them.
        contract = Path("tests/contract") / path.parts[0] / test.name
        if (root / test).exists() or (root / contract).exists():
            continue
        if decides(ast.parse((root / path).read_text())):
            yield f"{path} decides and has no {test}"


def decides(tree: ast.Module) -> bool:
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    parts = (part for node in functions for part in ast.walk(node))
    return any(isinstance(part, DECISIONS) and not validates(part) for part in parts)


def validates(part: ast.AST) -> bool:
    return isinstance(part, ast.If) and isinstance(part.body[-1], ast.Raise) and not part.orelse


def faults(root: Path) -> Iterator[str]:
    for program in PROGRAMS:
        paths = modules(root, program)
        yield from too_long(root, paths)
        yield from too_full(paths)
        yield from named_twice(paths)
        yield from untested(root, paths)


def main() -> int:
    found = list(faults(Path(__file__).resolve().parents[1]))
    for fault in found:
        sys.stderr.write(f"{fault}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
