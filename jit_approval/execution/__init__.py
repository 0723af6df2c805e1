"""Run a held call on the server: kept encrypted, rebuilt, and sent through the project's whole middleware chain.

Which process runs it is decided by a claim on the stored call; whether it runs at all, by the gate, which meets it
as it meets any call and spends the approval by the one UPDATE that everybody spends approvals by. See
docs/server-execution.md.
"""

from jit_approval.execution.running import run

__all__ = ["run"]
