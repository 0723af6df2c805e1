"""Imported once by the server that racing processes are forked from, so that none of them starts slowly."""

import django

django.setup()

import jit_approval.gate  # noqa: E402, F401 - after setup, and for its own sake
import tests.races.runners  # noqa: E402, F401
