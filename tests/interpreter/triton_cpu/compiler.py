"""Found by triton as the backend's compiler; the interpreter never asks it."""

from __future__ import annotations

from typing import Any

from triton.backends.compiler import BaseBackend


class CpuBackend(BaseBackend):  # type: ignore[misc]  # triton is untyped here
    @staticmethod
    def supports_target(target: Any) -> bool:
        return bool(target.backend == "cpu")

    def hash(self) -> str:
        return "cpu"

    def parse_options(self, options: dict[str, Any]) -> object:
        raise NotImplementedError

    def add_stages(self, stages: dict[str, Any], options: object, *rest: Any) -> None:
        raise NotImplementedError

    def load_dialects(self, context: Any) -> None:
        raise NotImplementedError

    def get_module_map(self) -> dict[str, Any]:
        return {}
