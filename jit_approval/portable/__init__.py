"""Policies as code: a file that people review, written from policies and made into them."""

from jit_approval.portable.changing import Made, make
from jit_approval.portable.differing import lines
from jit_approval.portable.problems import FileRefused, Problem
from jit_approval.portable.reading import PolicyFile, read
from jit_approval.portable.writing import write

__all__ = ["FileRefused", "Made", "PolicyFile", "Problem", "lines", "make", "read", "write"]
