"""Notebooks that show what Cellshell is for; `python -m notebooks.examples` runs them."""

from __future__ import annotations

from pathlib import Path

FIRST_STEPS = Path(__file__).with_name("first_steps.ipynb")
