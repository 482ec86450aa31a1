"""The house: packages on disk are those listed, imports flow one way, and light things stay light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = [room for room in ("engine", "kernels", "ray_serve") if (ROOT / room).is_dir()]

MAY_IMPORT = {
    "qvl.kernels": set(),
    "qvl.engine.dialects": {
        "qvl.engine.dialects",
        "qvl.engine.errors",
        "qvl.engine.magic",
        "qvl.engine.protocol",
    },
    "qvl.engine.magic": set(),
    "qvl.engine.protocol": {"qvl.engine.errors"},
    "qvl.engine.errors": set(),
    "qvl.engine.config": {"qvl.engine.errors"},
    "qvl.engine.prompt": {"qvl.engine.protocol"},
    "qvl.engine.bpe": set(),
    "qvl.engine.tokens": {"qvl.engine.bpe", "qvl.engine.errors", "qvl.engine.prompt", "qvl.engine.protocol"},
    "qvl.engine.media": {
        "qvl.engine.media",
        "qvl.engine.config",
        "qvl.engine.errors",
        "qvl.engine.machine",
        "qvl.engine.magic",
        "qvl.engine.fragments",
        "qvl.engine.protocol",
    },
    "qvl.engine.check.reference": set(),
    "qvl.engine.model": {"qvl.engine.model", "qvl.kernels"},
    "qvl.ray_serve": {
        "qvl.engine.about",
        "qvl.engine.admission",
        "qvl.engine.api",
        "qvl.engine.checkpoint",
        "qvl.engine.client",
        "qvl.engine.config",
        "qvl.engine.errors",
        "qvl.engine.jobs",
        "qvl.engine.machine",
        "qvl.engine.metrics",
        "qvl.engine.model.plugin",
        "qvl.engine.port",
        "qvl.engine.protocol",
        "qvl.engine.response",
        "qvl.engine.server",
        "qvl.engine.shares",
        "qvl.engine.start",
    },
}
HEAVY = {
    "qvl.engine.cli": ("torch", "vllm", "ray", "transformers", "starlette", "numpy", "PIL"),
    "qvl.engine.client": ("torch", "vllm", "ray", "transformers", "starlette", "PIL"),
    "qvl.engine.jobs.commands": ("torch", "vllm", "ray", "transformers", "starlette", "PIL"),
    "qvl.engine.dialects": ("torch", "vllm", "ray", "transformers", "starlette"),
    "qvl.engine.compat": ("torch", "vllm", "ray", "transformers", "starlette"),
    "qvl.engine.replicas.supervisor": ("torch", "vllm", "ray", "transformers", "starlette", "PIL"),
    "qvl.engine.model.plugin": ("torch", "vllm", "ray", "transformers", "starlette"),
    "qvl.ray_serve.config": ("torch", "vllm", "ray", "transformers", "starlette"),
    "qvl.ray_serve.policy": ("torch", "vllm", "ray", "transformers", "starlette", "numpy"),
}


def sources() -> list[tuple[str, Path]]:
    found = []
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            module = ".".join(["qvl", *path.relative_to(ROOT).with_suffix("").parts])
            found.append((module.removesuffix(".__init__"), path))
    return found


def ours(path: Path) -> set[str]:
    """Modules of ours that a file imports, those under TYPE_CHECKING and in functions included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    modules = {module for module, _ in sources()}
    return {name for name in names if name in modules}


def below(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def test_packages_on_disk_are_those_that_the_wheel_holds() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    on_disk = {
        module if path.name == "__init__.py" else module.rpartition(".")[0] for module, path in sources()
    }
    assert listed == on_disk


def test_kernels_can_never_shadow_the_package_of_that_name() -> None:
    assert not (ROOT / "kernels" / "__init__.py").exists()


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_flow_one_way(room: str) -> None:
    allowed = MAY_IMPORT[room]
    for module, path in sources():
        if below(module, room):
            wrong = {
                name
                for name in ours(path)
                if not any(below(name, each) for each in allowed | {room}) and name != "qvl.engine"
            }
            assert not wrong, f"{module} imports {sorted(wrong)}"


def test_only_the_model_room_imports_kernels_and_nobody_imports_ray() -> None:
    for module, path in sources():
        if below(module, "qvl.engine") and not below(module, "qvl.engine.model"):
            assert not any(below(name, "qvl.kernels") for name in ours(path)), module
            # The command line leads to `--ray`; that room imports Ray when it is asked to.
            names = {name for name in ours(path) if below(name, "qvl.ray_serve")}
            assert module == "qvl.engine.cli" or not names, module
            assert not re.search(r"^\s*(import|from) ray\b", path.read_text(), re.M), module


def test_one_replica_knows_nothing_of_several() -> None:
    room = "qvl.engine.replicas"
    users = {module for module, path in sources() if any(below(name, room) for name in ours(path))}
    assert {user for user in users if not below(user, room)} == {"qvl.engine.cli"}


def test_only_the_orders_of_a_supervisor_are_pickles() -> None:
    """Whoever sends one runs code in whoever reads it."""
    unsafe = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
    calls = re.compile(r"torch\.load\(|allow_pickle=True|yaml\.(unsafe_)?load\(|read_pickle\(")
    found = set()
    for module, path in sources():
        source = path.read_text()
        for node in ast.walk(ast.parse(source)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found |= {module for name in names if name.partition(".")[0] in unsafe}
        found |= {module} if calls.search(source) else set()
    assert found == {"qvl.engine.replicas.orders"}


@pytest.mark.parametrize("module", HEAVY)
def test_light_imports_stay_light(module: str) -> None:
    code = f"import {module}, sys; print(*(m for m in {HEAVY[module]!r} if m in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []


@pytest.mark.parametrize("room", [*ROOMS, "tests"])
def test_files_are_short(room: str) -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in (ROOT / room).rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 250
    }
    assert not long
