"""The run directory: everything that an auditor needs, without torch."""
