"""Erasure: contents of the trail, and of the rows beside it, go; hashes stay, and what was done is itself an event.

Of an event that was sealed the body goes, and with it the salt without which nobody guesses it from its hash. An event
of the kind `erased` names the places; a verifier believes it once it is sealed itself, so acts of erasure are never
erased. Where it is gated, erasing is a held call that another person approves, like a change of policies.
"""

from jit_approval.erasure.acts import erase
from jit_approval.erasure.gated import ACTION, connect, is_gated, make, make_all, propose
from jit_approval.erasure.scope import MAY_ERASE, Erased, ErasureRefused, Scope, ensure_may

__all__ = [
    "ACTION",
    "MAY_ERASE",
    "Erased",
    "ErasureRefused",
    "Scope",
    "connect",
    "ensure_may",
    "erase",
    "is_gated",
    "make",
    "make_all",
    "propose",
]
