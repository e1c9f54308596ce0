"""What holds for every test."""

from __future__ import annotations

import os

# Reading them imports mteb, once a home: too long for every server that a test starts.
os.environ.setdefault("UNMASK_MTEB_INSTRUCTIONS", "false")
