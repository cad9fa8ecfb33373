"""What schemathesis is told besides its configuration; it imports this file by its path."""

from __future__ import annotations

import schemathesis

schemathesis.serializer.alias("application/x-tar", "application/octet-stream")
