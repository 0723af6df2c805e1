"""Tests of jit_approval; the layout mirrors the package."""
