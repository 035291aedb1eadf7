"""The campaign of faults, by subject: `python tests/faults`."""
