"""Keep modules and functions small: a Python module at most 500 lines, a function at most 60, a Go file at most 400."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULE_MOST = 500
FUNCTION_MOST = 60
GO_MOST = 400
GO_MAIN_MOST = 150
FOLDERS = ("src", "tests", "scripts", "benchmarks")
VAGUE_NAMES = {"utils", "helpers", "common", "misc"}


def python_findings(path: Path) -> Iterator[str]:
    """What is too large in one Python file."""
    text = path.read_text()
    lines = text.count("\n")
    if path.stem in VAGUE_NAMES:
        yield f"{path}: a name that says nothing"
    if lines > MODULE_MOST:
        yield f"{path}: {lines} lines, at most {MODULE_MOST}"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_MOST:
                yield f"{path}:{node.lineno}: {node.name} has {length} lines, at most {FUNCTION_MOST}"


def go_findings(path: Path) -> Iterator[str]:
    """What is too large in one Go file."""
    lines = path.read_text().count("\n")
    most = GO_MAIN_MOST if path == ROOT / "agent" / "main.go" else GO_MOST
    if lines > most:
        yield f"{path}: {lines} lines, at most {most}"


def main() -> int:
    """Print all findings; 1 if there are any."""
    findings = [line for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") for line in python_findings(path)]
    findings += [line for path in (ROOT / "agent").rglob("*.go") for line in go_findings(path)]
    sys.stdout.write("".join(f"{line}\n" for line in findings))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
