"""Notebooks made of executions, and the example notebooks."""
