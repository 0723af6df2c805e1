"""Who may import whom: the arrows of docs/design.md, checked on the source of the package.

`LAYERS` is the whole table, lowest first. A module imports from lower layers and from its own,
never from a higher one, and no two modules import each other, however indirectly. A new module
belongs in the table before it belongs anywhere.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = "jit_approval"
ROOT = Path(__file__).resolve().parent.parent / PACKAGE
LAYERS = (
    # pure: no models, no HTTP
    "states exceptions signals conf clock fingerprint calls redaction prepared addresses conditions quorum "
    "persons secrets stopping prefer "
    "client",
    "models querysets migrations appendonly",
    "policies limits queue audit notifications heartbeats waking",
    "transitions",
    "verdicts opening voting",
    "services batches overdue escalating",
    # glue: parses input, calls one service, shapes the answer
    "agents facts",
    "policy_changes erasure membership departures explaining delegating portable",
    "streaming keeping sweeping clockwork health",
    "advice openapi decorators renderers arguments guard commands "
    "execution replays capture body refusals links problems waiting repeating online gate attempt gated handlers "
    "permissions api urls "
    "admin tasks "
    "metrics middleware checks apps management templatetags routes inventory",
)
LAYER_OF = {module: rank for rank, modules in enumerate(LAYERS) for module in modules.split()}
MODELS = LAYER_OF["models"]


@dataclass(frozen=True)
class Import:
    """One import statement: `source` (a path) names the dotted `target`."""

    source: Path
    line: int
    target: str
    lazy: bool
    for_types: bool

    @property
    def module(self) -> str:
        """The top-level module of the package that imports."""
        return module_of(self.source)

    @property
    def ours(self) -> str | None:
        """The top-level module of the package that is imported, if it is ours."""
        package, _, rest = self.target.partition(".")
        return rest.partition(".")[0] or "__init__" if package == PACKAGE else None

    def __str__(self) -> str:
        return f"{self.source.relative_to(ROOT.parent)}:{self.line} imports {self.target}"


def module_of(path: Path) -> str:
    """`jit_approval/audit/chain.py` is part of `audit`."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def sources() -> list[Path]:
    """Every Python file of the package."""
    return sorted(ROOT.rglob("*.py"))


def imports_of(path: Path) -> Iterator[Import]:
    """Every import in a file, however deep, as absolute dotted names."""
    package = [PACKAGE, *path.relative_to(ROOT).parts[:-1]]

    def visit(node: ast.AST, lazy: bool, for_types: bool) -> Iterator[Import]:
        for name in names_in(node, package):
            yield Import(path, node.lineno, name, lazy, for_types)
        inside_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        guarded = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, lazy or inside_function, for_types or guarded)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), False, False)


def names_in(node: ast.AST, package: list[str]) -> Iterator[str]:
    """The dotted names one import statement asks for; `from . import x` may mean a module x."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = package[: len(package) - node.level + 1] if node.level else []
        prefix = ".".join([*base, *filter(None, [node.module])])
        yield from (f"{prefix}.{alias.name}" for alias in node.names)


def all_imports() -> list[Import]:
    """Every import in the package."""
    return [found for path in sources() for found in imports_of(path)]


def broken(imports: list[Import]) -> list[str]:
    """As lines to read in a failing assertion."""
    return [str(one) for one in imports]


def test_every_module_has_a_layer() -> None:
    unknown = {module_of(path) for path in sources()} - {"__init__", *LAYER_OF}
    assert not unknown, f"say in LAYERS where these belong: {sorted(unknown)}"


def test_the_package_itself_imports_nothing_of_ours() -> None:
    # Importing any module runs __init__ first: it would pull everything in with it.
    assert not broken([one for one in imports_of(ROOT / "__init__.py") if one.ours])


def test_arrows_point_down_only() -> None:
    # An import for types alone counts: who must name a thing knows of it.
    assert not broken(
        [
            one
            for one in all_imports()
            if one.ours in LAYER_OF
            and one.module in LAYER_OF
            and LAYER_OF[one.ours] > LAYER_OF[one.module]
        ]
    )


def test_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    for one in all_imports():
        # permissions.py finds gate.py at the first call: the one circle there is, and on purpose.
        on_purpose = one.lazy and one.module == "permissions"
        if one.ours in LAYER_OF and one.ours != one.module and not (on_purpose or one.for_types):
            graph.setdefault(one.module, set()).add(one.ours)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' <- '.join(error.args[1])}")


def test_permissions_imports_nothing_of_ours_before_the_first_call() -> None:
    # As a default permission class it is imported while DRF, and the app registry, still load.
    path = ROOT / "permissions.py"
    early = [one for one in imports_of(path) if one.ours and not (one.lazy or one.for_types)]
    assert not broken(early)


def test_pure_modules_know_neither_models_nor_http() -> None:
    foreign = ("django.http", "rest_framework", "django.contrib", "django_q", "guardian")
    assert not broken(
        [
            one
            for one in all_imports()
            if LAYER_OF.get(one.module, MODELS) < MODELS and f"{one.target}.".startswith(foreign)
        ]
    )


def test_only_queue_imports_the_task_api() -> None:
    task_api = "django_q.tasks."
    assert not broken(
        [
            one
            for one in all_imports()
            if f"{one.target}.".startswith(task_api) and one.module != "queue"
        ]
    )


def test_only_conf_reads_our_settings() -> None:
    def names_our_setting(node: ast.AST) -> bool:
        return (isinstance(node, ast.Attribute) and node.attr == "JIT_APPROVAL") or (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in {"getattr", "hasattr"}
            and any(isinstance(a, ast.Constant) and a.value == "JIT_APPROVAL" for a in node.args)
        )

    readers = {
        module_of(path)
        for path in sources()
        if any(map(names_our_setting, ast.walk(ast.parse(path.read_text(encoding="utf-8")))))
    }
    assert readers <= {"conf"}
