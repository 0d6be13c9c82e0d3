"""The house: which room may import which, no circle anywhere, and small modules in folders of a size to walk through.

Read as imports: import statements, and strings that start a module (`"-m", "package.module"`).
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import networkx

ROOT = Path(__file__).parent.parent
LAYERS = ("netsim", "algorithms", "harness", "reports", "longhaul")

# Room -> the rooms of its own package that it may import; rooms that are not listed may import all of their package.
NODE = {
    "emulated.node",
    "emulated.plan",
    "emulated.owner",
    "framing",
    "library",
    "errors",
    "units",
    "links",
    "documents",
}
MAY_IMPORT: dict[str, dict[str, set[str]]] = {
    "harness": {
        "spec": set(),
        "transport": set(),
        "records": {"spec", "transport"},
        "worker": {"spec", "transport", "records"},
        "elastic": {"spec", "transport", "records", "worker"},
        "worker_main": {"spec", "transport", "records", "worker", "elastic"},
        "run": {"spec", "transport", "records", "worker", "elastic", "worker_main"},
        "costmodel": {"spec", "transport", "records", "worker", "elastic"},
        "cluster": {"spec", "records", "worker", "run", "costmodel"},
    },
}
MODULE_STRING = re.compile(r"^(?:" + "|".join(LAYERS) + r")(?:\.\w+)+$")
MOST_LINES, MOST_FILES, MOST_ROOMS = 400, 20, 12


def module_of(path: Path) -> str:
    name = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    return name.removesuffix(".__init__")


FILES = {module_of(path): path for package in LAYERS for path in sorted((ROOT / package).rglob("*.py"))}


def started_modules(tree: ast.AST) -> Iterator[str]:
    """Modules that a list of arguments starts: the string after "-m"."""
    for node in ast.walk(tree):
        if isinstance(node, ast.List | ast.Tuple):
            words = [item.value if isinstance(item, ast.Constant) else None for item in node.elts]
            for flag, word in pairwise(words):
                if flag == "-m" and isinstance(word, str) and MODULE_STRING.match(word):
                    yield word


def imports_of(module: str) -> set[str]:
    """Our modules that `module` imports or starts; the names of packages resolved to modules where they are some."""
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    named = set(started_modules(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            named |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    known = {name for name in named if name in FILES}
    # `from package import module` names the module; the package itself is not what is wanted then.
    return {n for n in known if not any(other.startswith(f"{n}.") for other in known)} - {module}


GRAPH = {module: imports_of(module) for module in FILES}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_imports_point_from_longhaul_towards_netsim() -> None:
    rank = {name: place for place, name in enumerate(LAYERS)}
    offenders = [
        f"{module} -> {target}"
        for module, targets in GRAPH.items()
        for target in targets
        if rank[target.split(".")[0]] > rank[module.split(".")[0]]
    ]
    assert offenders == []


def test_rooms_import_only_the_rooms_below_them() -> None:
    offenders = [
        f"{module} -> {target}"
        for module, targets in GRAPH.items()
        for target in targets
        if (rules := MAY_IMPORT.get(module.split(".")[0]))
        and target.split(".")[0] == module.split(".")[0]
        and room(module) in rules
        and room(target) not in {"", room(module), *rules[room(module)]}
    ]
    assert offenders == []


def test_the_agent_starts_with_plain_data_alone() -> None:
    offenders = [
        f"{module} -> {target}"
        for module, targets in GRAPH.items()
        if module.startswith("netsim.emulated.node.")
        for target in targets
        if not any(target.startswith(f"netsim.{allowed}") for allowed in NODE)
    ]
    assert offenders == []


def test_no_import_goes_in_a_circle() -> None:
    graph = networkx.DiGraph([(module, target) for module, targets in GRAPH.items() for target in targets])
    assert [sorted(circle) for circle in networkx.strongly_connected_components(graph) if len(circle) > 1] == []


def test_netsim_knows_no_torch() -> None:
    offenders = [
        module
        for module, path in FILES.items()
        if module.startswith("netsim") and re.search(r"^\s*(?:import|from) torch", path.read_text(), re.MULTILINE)
    ]
    assert offenders == []


def test_modules_and_folders_stay_small() -> None:
    long = [m for m, path in FILES.items() if len(path.read_text(encoding="utf-8").splitlines()) > MOST_LINES]
    folders = {path.parent for path in FILES.values()}
    full = [
        folder.relative_to(ROOT).as_posix() for folder in folders if len(list(folder.glob("*.py"))) - 1 > MOST_FILES
    ]
    rooms = [path for path in (ROOT / "harness").iterdir() if path.is_dir() and (path / "__init__.py").is_file()]
    assert (long, full) == ([], [])
    assert len(rooms) <= MOST_ROOMS


def test_every_room_says_what_is_in_it() -> None:
    silent = [
        m
        for m, path in FILES.items()
        if path.name == "__init__.py" and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def test_the_schema_is_read_without_torch() -> None:
    program = "import sys, harness.spec.suite, harness.spec.scenario, harness.records; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


def test_architecture_draws_every_package() -> None:
    drawn = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("```")[1]
    packages = [path.parent for path in FILES.values() if path.name == "__init__.py"]
    assert [p.relative_to(ROOT).as_posix() for p in packages if f"{p.name}/ " not in drawn] == []


def test_public_class_names_are_unique() -> None:
    homes: dict[str, list[str]] = {}
    for module, path in FILES.items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(module)
    assert {name: modules for name, modules in homes.items() if len(modules) > 1} == {}


def test_test_names_fit_in_sixty_characters() -> None:
    names = [
        name
        for path in (ROOT / "tests").rglob("*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text("utf-8"))
    ]
    assert [name for name in names if len(name) > 60] == []
