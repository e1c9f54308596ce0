"""What docs/security.md says: every point of the list once, by tests that there are; and what the code itself shows."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from unmask.gateway.accounts.links import LINK_SECONDS, PER_ADDRESS, PER_CLIENT
from unmask.gateway.hosting.settings import GatewaySettings

ROOT = Path(__file__).parents[2]
GATEWAY = ROOT / "src" / "unmask" / "gateway"
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
#: Level 1 of version 5.0.0: chapter and section, and which of its points.
POINTS = {
    "1.2": (1, 2, 3, 4, 5), "1.3": (1, 2), "1.5": (1,), "2.1": (1,), "2.2": (1, 2), "2.3": (1,), "3.2": (1, 2),
    "3.3": (1,), "3.4": (1, 2), "3.5": (1, 2, 3), "4.1": (1,), "4.4": (1,), "5.2": (1, 2), "5.3": (1, 2), "6.1": (1,),
    "6.2": (1, 2, 3, 4, 5, 6, 7, 8), "6.3": (1, 2), "6.4": (1, 2), "7.2": (1, 2, 3, 4), "7.4": (1, 2), "8.1": (1,),
    "8.2": (1, 2), "8.3": (1,), "9.1": (1, 2, 3), "9.2": (1,), "10.4": (1, 2, 3, 4, 5), "11.3": (1, 2), "11.4": (1,),
    "12.1": (1,), "12.2": (1, 2), "13.4": (1,), "14.2": (1,), "14.3": (1,), "15.1": (1,), "15.2": (1,), "15.3": (1,),
}  # fmt: skip


def test_every_point_is_answered_once() -> None:
    rows = re.findall(r"^\| (\d+\.\d+\.\d+) \| ([^|]+) \| ([^|]+) \|$", PAGE, re.MULTILINE)
    points = [f"{section}.{number}" for section, numbers in POINTS.items() for number in numbers]
    assert [number for number, _, _ in rows] == points
    assert len(points) == 70
    assert all(asked.strip() and how.strip() for _, asked, how in rows)


def test_every_test_and_every_file_that_it_names_is_there() -> None:
    tests = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    defined = set(re.findall(r"^(?:async )?def (test_\w+)", tests, re.MULTILINE))
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) > 50
    assert named <= defined, named - defined
    files = set(re.findall(r"`([a-z]+/[\w/]+\.\w+)`", PAGE))
    assert len(files) > 15
    assert not [file for file in files if not (GATEWAY / file).is_file()]


def test_every_test_of_security_is_named() -> None:
    own = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_security_*.py"))
    left_out = [name for name in re.findall(r"^def (test_\w+)", own, re.MULTILINE) if f"`{name}`" not in PAGE]
    assert len(left_out) < 10, left_out


def test_its_numbers_are_the_codes() -> None:
    assert (PER_ADDRESS.count, PER_ADDRESS.seconds, PER_CLIENT.count, PER_CLIENT.seconds) == (5, 3600, 20, 3600)
    assert LINK_SECONDS == 15 * 60
    fields = GatewaySettings.model_fields
    assert (fields["tries_per_minute"].default, fields["file_bytes"].default) == (20, 200_000_000)
    assert fields["private_providers"].default is False


def test_the_gateway_runs_no_text_as_code() -> None:
    found = []
    for file in GATEWAY.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                shell = any(each.arg == "shell" for each in node.keywords)
                if name in ("eval", "exec", "compile", "os.system", "os.popen", "pickle.loads", "pickle.load") or shell:
                    found.append((file.name, node.lineno, name))
    assert found == []


def test_no_weak_hash_is_used() -> None:
    used = set()
    for file in GATEWAY.rglob("*.py"):
        used |= set(re.findall(r"hashlib\.(\w+)|\b(MD5|SHA1|DES|RC4|ECB|CBC)\b", file.read_text(encoding="utf-8")))
    assert {first or second for first, second in used} <= {"sha256", "blake2b", "sha512"}, used
