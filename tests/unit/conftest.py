"""Unit tests open no socket: what tries to fails."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_sockets(socket_disabled: None) -> None:
    """Refuse sockets for each test."""
