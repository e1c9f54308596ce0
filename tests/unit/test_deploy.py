"""The files that deploy a server say what the server's settings say."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

pytest.importorskip("pydantic_settings")

import yaml

from unmask.gateway.api.settings import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
SHUTDOWN = Settings().shutdown_seconds


def unit() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / "unmask.service")
    return parser["Service"]


def test_nothing_runs_as_root() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users
    assert users[-1] not in {"root", "0"}
    assert unit()["DynamicUser"] == "yes"
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["unmask"]
    assert service["cap_drop"] == ["ALL"]


def test_each_waits_longer_than_the_server_takes_to_finish() -> None:
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["unmask"]
    assert float(service["stop_grace_period"].removesuffix("s")) > SHUTDOWN
    assert float(unit()["TimeoutStopSec"]) > SHUTDOWN


def test_the_image_listens_where_it_is_asked_for_its_health() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    (port,) = re.findall(r"UNMASK_PORT=(\d+)", text)
    assert f"EXPOSE {port}" in text
    assert f":{port}/ready" in text
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["unmask"]
    assert [each.rpartition(":")[2] for each in service["ports"]] == [port]


def test_compose_needs_keys() -> None:
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["unmask"]
    assert service["environment"]["UNMASK_API_KEYS"].startswith("${UNMASK_API_KEYS:?")
