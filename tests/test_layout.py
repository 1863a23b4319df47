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
    "replay/batch/cluster.py": {"distributed"},
    "replay/batch/command.py": {"reports"},
    "replay/batch/unit.py": {"reports"},
    "replay/cli/commands.py": {"captures", "reports", "typer"},
    "replay/cli/results.py": {"reports", "typer"},
    "replay/cli/streams.py": {"captures", "typer"},
    "replay/inspect.py": {"captures"},
    "replay/pipeline.py": {"captures", "reports"},
    "replay/results/notebook.py": {"reports"},
    "replay/results/plot.py": {"reports"},
    "replay/cli/record.py": {"captures", "reports", "typer"},
    "replay/record/run.py": {"captures"},
    "replay/record/probes.py": {"captures"},
    "replay/record/script.py": {"captures"},
    "replay/batch/urls.py": {"fsspec"},
    "reports/figures/by_matplotlib.py": {"matplotlib"},
    "reports/pictures.py": {"kaleido"},
}
"""Modules that join the parts or use an extra, and what they may import in addition."""

READING = {"eventfmt", "info", "losses", "source", "spans"}

PARTS = {
    "replay/state": set[str](),
    "replay/walks": {"state", "strategies"},
    "replay/findings": {"state", "strategies", "walks"},
    "replay/model": {"state"},
    "replay/ksm": {"model", "state", "strategies", "summary", "walks"},
    "replay/oracle": {"state"},
    "replay/record": {"inspect"},
    "replay/testbench": {"pipeline", "record"},
    "replay/results": set[str](),
    "replay/batch": {"options", "pipeline", "results", "walks"},
    "replay/cli": {"batch", "inspect", "options", "pipeline", "record", "results", "testbench"},
    "captures/tracedat": {*READING, "binary", "compression", "cursor", "decode", "ringbuf", "windows"},
    "captures/perfdata": {*READING, "binary", "cursor", "decode", "ringbuf", "tracedat", "windows"},
    "captures/text": READING,
    "reports/facts": {"grid"},
    "reports/figures": {"escape", "facts", "grid"},
    "reports/words": {"facts", "grid", "section"},
    "reports/fleet": {"escape", "figures", "grid", "page", "words"},
    "reports/inspection": {"escape", "facts", "markdown"},
}
"""The parts of the packages, and which other parts and modules beside them each may import."""

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


def parts_imported(folder: str) -> set[str]:
    """Parts of the same package, and modules beside them, that the modules of a part import."""
    package, part = folder.split("/")
    found: set[str] = set()
    for path in (ROOT / folder).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == package:
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{package}."):
                found.add(str(node.module).split(".")[1])
    return found - {part, "__version__"}


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


def test_every_part_has_its_rule() -> None:
    found = {path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("*/*/__init__.py")}
    assert {each for each in found if each.split("/")[0] in MAY_IMPORT} == set(PARTS)


@pytest.mark.parametrize("part", PARTS)
def test_part_imports_what_is_below_it(part: str) -> None:
    assert parts_imported(part) <= PARTS[part]


@pytest.mark.parametrize("module", MODULES)
def test_module_is_not_too_long(module: str) -> None:
    assert size_fault((ROOT / module).read_text()) is None


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("schemas/mm.py", "import polars", ["1: polars"]),
        ("captures/decode.py", "from replay import walks", ["1: replay"]),
        ("captures/decode.py", "import captures, reports.text", ["1: reports.text"]),
        ("replay/walks/counting.py", "def f():\n    from captures import open_capture", ["2: captures"]),
        ("replay/cli/commands.py", "from captures import open_capture", []),
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
