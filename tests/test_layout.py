"""The shape of the project: who may import whom, how long a module may be, what is public."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

MAY_IMPORT = {
    "schemas": {"schemas", "pyarrow"},
    "captures": {"captures", "schemas", "numpy", "pyarrow", "polars", "zstandard"},
    "replay": {"replay", "schemas", "numpy", "pyarrow", "polars", "numba"},
    "reports": {"reports", "schemas", "numpy", "pyarrow", "polars", "plotly", "jinja2", "markupsafe"},
}
"""What each package may import besides the standard library (CONTRIBUTING.md, section 3)."""

COMPOSITION = {
    "replay/__init__.py": set(),
    "replay/batch_cluster.py": {"distributed"},
    "replay/batch_command.py": {"reports"},
    "replay/batch_unit.py": {"reports"},
    "replay/cli.py": {"captures", "reports", "typer"},
    "replay/cli_results.py": {"reports", "typer"},
    "replay/inspect.py": {"captures"},
    "replay/pipeline.py": {"captures", "reports"},
    "replay/notebook.py": {"reports"},
    "replay/plot.py": {"reports"},
    "replay/cli_record.py": {"captures", "reports", "typer"},
    "replay/record.py": {"captures"},
    "replay/record_probes.py": {"captures"},
    "replay/record_script.py": {"captures"},
    "replay/urls.py": {"fsspec"},
    "reports/by_matplotlib.py": {"matplotlib"},
    "reports/pictures.py": {"kaleido"},
}
"""Modules that join the parts or use an extra, and what they may import in addition."""

MODULES = sorted(
    path.relative_to(ROOT).as_posix() for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py")
)


def forbidden_imports(module: str, source: str) -> list[str]:
    """Imports that the module may not have, as ``line: name``."""
    allowed = MAY_IMPORT[module.split("/")[0]] | COMPOSITION.get(module, set()) | sys.stdlib_module_names
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = ["." * node.level + (node.module or "")]
        else:
            continue
        found += [f"{node.lineno}: {name}" for name in names if name.split(".")[0] not in allowed]
    return found


def size_fault(source: str) -> str | None:
    """Why the module is too long; None: it is not."""
    lines = source.count("\n")
    if lines > 600:
        return f"{lines} lines: no module has more than 600"
    if lines > 400 and "400 lines" not in (ast.get_docstring(ast.parse(source)) or ""):
        return f'{lines} lines: its docstring has to say "Over 400 lines because ..."'
    return None


def test_the_packages_are_all_there() -> None:
    assert {module.split("/")[0] for module in MODULES} == set(MAY_IMPORT)


@pytest.mark.parametrize("module", MODULES)
def test_module_keeps_the_import_rule(module: str) -> None:
    assert forbidden_imports(module, (ROOT / module).read_text()) == []


@pytest.mark.parametrize("module", MODULES)
def test_module_is_not_too_long(module: str) -> None:
    assert size_fault((ROOT / module).read_text()) is None


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("schemas/mm.py", "import polars", ["1: polars"]),
        ("captures/decode.py", "from replay import walks", ["1: replay"]),
        ("captures/decode.py", "import captures, reports.text", ["1: reports.text"]),
        ("replay/walks.py", "def f():\n    from captures import open_capture", ["2: captures"]),
        ("replay/cli.py", "from captures import open_capture", []),
        ("reports/text.py", "from . import facts", ["1: ."]),
        ("reports/text.py", "import json, plotly.io\nfrom schemas import TABLES", []),
    ],
)
def test_import_rule_sees(module: str, source: str, found: list[str]) -> None:
    assert forbidden_imports(module, source) == found


@pytest.mark.parametrize(
    ("lines", "docstring", "fault"),
    [
        (400, "Short.", False),
        (401, "Long.", True),
        (401, "Over 400 lines because.", False),
        (601, "400 lines", True),
    ],
)
def test_size_rule_sees(lines: int, docstring: str, fault: bool) -> None:
    source = f'"""{docstring}"""\n' + "x = 1\n" * (lines - 1)
    assert (size_fault(source) is not None) is fault


@pytest.mark.parametrize("package", ["replay", "schemas"])
def test_public_names_load(package: str) -> None:
    module = importlib.import_module(package)
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        _ = module.no_such_name


def test_a_foreign_package_of_the_same_name_is_named_and_not_run(tmp_path: Path) -> None:
    foreign = tmp_path / "reports"
    foreign.mkdir()
    (foreign / "__init__.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w')")
    script = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import replay"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"Python finds {foreign / '__init__.py'}" in done.stderr
    assert not (tmp_path / "was_run").exists()
