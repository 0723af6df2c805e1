"""Where the rows are, and who stands behind an account."""

from __future__ import annotations

from django.db import router

from jit_approval.models import ApprovalRequest
from jit_approval.persons import is_behind, person_of

__all__ = ["database", "is_behind", "person_of"]


def database() -> str:
    """Return the alias every read and write of this app uses: the writer, never a replica."""
    return router.db_for_write(ApprovalRequest)
