"""Compares every version of constraints.txt with the published advisories: `make advisories`.

    python deploy/advisories.py [REPORT]

Runs pip-audit (in an environment of its own) over the pins, or reads what it wrote: REPORT, its JSON. What pip-audit
could not ask about it passes over and calls well; here that counts as not checked, and not as well.

Exit status: 0, every pin was checked and none has an advisory; 1, some have; 2, some could not be checked.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PINS = Path(__file__).parents[1] / "constraints.txt"
TOOL = "pip-audit==2.10.1"


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What is known of the pins.

    Attributes:
        checked: pins that were compared.
        advisories: a line for each that a pin has.
        unknown: a line for each pin that nobody could say anything of.
    """

    checked: int
    advisories: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def status(self) -> int:
        """The exit status."""
        return 1 if self.advisories else 2 if self.unknown else 0


def read_pins(text: str) -> dict[str, str]:
    """Return the version of each package of a constraints file."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return {
        name.lower().replace("_", "-"): version for name, _, version in (each.partition("==") for each in lines if each)
    }


def findings_of(report: dict[str, Any], pins: dict[str, str]) -> Findings:
    """Return what a report of pip-audit says of the pins; one that it leaves out was not checked."""
    said = {each["name"].lower().replace("_", "-"): each for each in report["dependencies"]}
    advisories, unknown = [], []
    for name, version in pins.items():
        found = said.get(name, {"skip_reason": "the report leaves it out"})
        if "skip_reason" in found:
            unknown.append(f"{name} {version}: {found['skip_reason']}")
        elif found["version"] != version:
            unknown.append(f"{name} {version}: the report is of {found['version']}")
        for each in found.get("vulns", ()):
            mended = ", ".join(each["fix_versions"]) or "no version yet"
            advisories.append(f"{name} {version}: {each['id']} ({', '.join(each['aliases'])}); mended in {mended}")
    return Findings(checked=len(pins) - len(unknown), advisories=tuple(advisories), unknown=tuple(unknown))


def ask() -> dict[str, Any]:
    """Return pip-audit's report of the pins.

    Raises:
        SystemExit: it cannot be installed, or says nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        programs, report = Path(folder) / "bin", Path(folder) / "report.json"
        installed = subprocess.run([programs / "pip", "install", "--quiet", TOOL], check=False)  # noqa: S603
        if installed.returncode:
            sys.exit(2)
        options = ["--no-deps", "--disable-pip", "--progress-spinner=off", "--format=json", f"--output={report}"]
        # It says with its exit status that something was found, which the report says, too.
        subprocess.run([programs / "pip-audit", f"--requirement={PINS}", *options], check=False)  # noqa: S603
        if not report.exists():
            sys.exit(2)
        return dict(json.loads(report.read_text(encoding="utf-8")))


def main(arguments: list[str]) -> int:
    """Say what is known of the pins; return the exit status."""
    report = json.loads(Path(arguments[0]).read_text(encoding="utf-8")) if arguments else ask()
    pins = read_pins(PINS.read_text(encoding="utf-8"))
    found = findings_of(report, pins)
    for line in (*found.unknown, *found.advisories):
        print(line)  # noqa: T201
    print(f"{found.checked} of {len(pins)} versions checked: {len(found.advisories)} advisories.")  # noqa: T201
    return found.status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
