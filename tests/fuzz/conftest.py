"""The same examples in every run, so that a red run is one of the change; others on request."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("steady", derandomize=True, database=None)
settings.register_profile("drawn", database=None, max_examples=1000)
settings.load_profile(os.environ.get("CELLSHELL_FUZZ", "steady"))
