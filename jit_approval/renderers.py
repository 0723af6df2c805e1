"""A refusal as a page, for people who called a gated Django view from a browser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.template.loader import render_to_string
from rest_framework.renderers import BaseRenderer


class ProblemPage(BaseRenderer):
    """Problem details as HTML. `jit_approval/problem.html` is the template; a project may have its own."""

    media_type = "text/html"
    format = "html"
    charset = "utf-8"

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> str:
        """Return the page."""
        problem = data if isinstance(data, dict) else {"detail": data}
        return render_to_string("jit_approval/problem.html", {"problem": problem})
