"""What is made of pip-audit's report: an advisory is said, and what could not be asked is never called well."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CODE = runpy.run_path(str(ROOT / "deploy" / "advisories.py"), run_name="advisories")
VULN = {"id": "PYSEC-2024-26", "aliases": ["CVE-2024-23829"], "fix_versions": ["3.9.2"], "description": "long"}


def well(name: str, version: str, *vulns: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "version": version, "vulns": list(vulns)}


def test_the_pins_are_read_as_they_stand() -> None:
    pins = CODE["read_pins"]((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    assert len(pins) > 100
    assert all(version and "=" not in version for version in pins.values())
    assert CODE["read_pins"]("A_b==1 # why\n# none\n\nc==2.0") == {"a-b": "1", "c": "2.0"}


@pytest.mark.parametrize(
    ("said", "status", "line"),
    [
        ([well("aiohttp", "3.9.1"), well("a_b", "1")], 0, "2 of 2 versions checked: 0 advisories."),
        (
            [well("aiohttp", "3.9.1", VULN), well("a-b", "1")],
            1,
            "aiohttp 3.9.1: PYSEC-2024-26 (CVE-2024-23829); mended in 3.9.2",
        ),
        ([well("aiohttp", "3.9.1", VULN | {"fix_versions": []}), well("a-b", "1")], 1, "mended in no version yet"),
        ([well("aiohttp", "3.9.1"), {"name": "a-b", "skip_reason": "not found"}], 2, "a-b 1: not found"),
        ([well("aiohttp", "3.9.1")], 2, "a-b 1: the report leaves it out"),
        ([well("aiohttp", "3.9.2"), well("a-b", "1")], 2, "aiohttp 3.9.1: the report is of 3.9.2"),
        ([], 2, "0 of 2 versions checked"),
        ([well("aiohttp", "3.9.1", VULN)], 1, "1 of 2 versions checked: 1 advisories."),
    ],
)
def test_what_was_not_checked_is_not_well(
    said: list[dict[str, Any]],
    status: int,
    line: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "constraints.txt").write_text("aiohttp==3.9.1\na_b==1\n", encoding="utf-8")
    (tmp_path / "report.json").write_text(json.dumps({"dependencies": said}), encoding="utf-8")
    monkeypatch.setitem(CODE["main"].__globals__, "PINS", tmp_path / "constraints.txt")
    assert CODE["main"]([str(tmp_path / "report.json")]) == status
    assert line in capsys.readouterr().out
