"""What docs/routing.md shows works as it stands there, and what it says of numbers is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from unmask.gateway.routing.agreement import AGREED, PROBES
from unmask.gateway.routing.assembling import variable_of
from unmask.gateway.routing.routes import RoutingSettings

PAGE = (Path(__file__).parents[2] / "docs" / "routing.md").read_text(encoding="utf-8")


def test_the_example_works(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    exec(compile(example, "docs/routing.md", "exec"), {"__name__": "example"})
    assert capsys.readouterr().out == "local (1, 384) checking\n"


def test_its_numbers_are_the_codes() -> None:
    settings = RoutingSettings()
    assert settings.attempts == 3
    assert "**Three attempts** at most, within two minutes" in PAGE
    assert settings.seconds == 120
    for said in (
        f"{settings.retry_share:.0%}".replace("%", " %"),
        f"{settings.explore:.0%}".replace("%", " %"),
        f"every {settings.check_seconds:.0f} s",
        f"for {settings.cooldown:.0f} s",
        f"{AGREED} or more",
        variable_of("our GPU machine"),
    ):
        assert said in PAGE
    assert (settings.failures, settings.failure_share, settings.longest_cooldown, len(PROBES)) == (5, 0.5, 300, 12)
