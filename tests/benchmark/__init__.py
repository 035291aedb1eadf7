"""The benchmark, by subject: `python tests/benchmark`."""
