"""A host application for the tests: the smallest things worth guarding."""
