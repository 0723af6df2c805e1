"""What the gate costs a call: `python -m tests.benchmarks`, explained in docs/benchmarks.md."""
