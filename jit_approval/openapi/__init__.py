"""OpenAPI of gated operations and of the status API, with drf-spectacular (extra `openapi`).

`REST_FRAMEWORK = {"DEFAULT_SCHEMA_CLASS": "jit_approval.openapi.AutoSchema"}`; a project with a schema class of its
own puts `GatedSchema` before it. Nothing is opened or written while a schema is made.
"""

from __future__ import annotations

from typing import Any

from drf_spectacular.openapi import AutoSchema as SpectacularSchema
from drf_spectacular.plumbing import ResolvedComponent

from jit_approval.api.views import ApprovalView
from jit_approval.openapi import calls, schemas, status

__all__ = ["AutoSchema", "GatedSchema"]


class GatedSchema:
    """What is added to a schema class: how a gated operation may be answered, and the status API."""

    view: Any
    method: str
    registry: Any

    def get_operation(self, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        """Describe the operation; of gated ones with headers, refusals and policies."""
        if isinstance(self.view, ApprovalView):
            return self._of_the_package(*args, **kwargs)
        operation: dict[str, Any] | None = super().get_operation(*args, **kwargs)  # type: ignore[misc]
        if operation is not None and (gate := calls.gate_of(self.view, self.method)) is not None:
            self._register("ApprovalProblem", schemas.problem())
            calls.describe(operation, self.view, self.method, gate)
        return operation

    def _of_the_package(
        self, path: str, path_regex: str, path_prefix: str, method: str, registry: Any
    ) -> dict[str, Any] | None:
        self.path, self.path_regex, self.path_prefix = path, path_regex, path_prefix
        self.method, self.registry = method.upper(), registry
        operation = status.operation(self.view, self.method, path)
        if operation is None:
            return None
        for name, schema in schemas.all_of_them().items():
            self._register(name, schema)
        auth = self.get_auth()  # type: ignore[attr-defined]
        return {**operation, **({"security": auth} if auth else {})}

    def _register(self, name: str, schema: dict[str, Any]) -> None:
        component = ResolvedComponent(  # type: ignore[no-untyped-call]
            name=name, type=ResolvedComponent.SCHEMA, schema=schema, object=name
        )
        self.registry.register_on_missing(component)


class AutoSchema(GatedSchema, SpectacularSchema):
    """drf-spectacular's schema class, with what the gate adds."""
