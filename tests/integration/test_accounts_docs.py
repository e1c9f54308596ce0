"""What docs/gateway.md shows works as it stands there."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

pytest.importorskip("alembic")
pytest.importorskip("psycopg")

from unmask.gateway.accounts.audit import audit
from unmask.gateway.db.database import Database

PAGE = Path(__file__).parents[2] / "docs" / "gateway.md"


def test_the_example_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, str(PAGE), "exec"), {"__name__": "example"})

    async def after() -> None:
        async with Database("sqlite:///gateway.db") as database:
            found = await audit(database)
            assert (found.users, found.entries, found.holds, found.credit) == (1, 2, 0, 5_000_000 - 13)
            assert found.findings == ()

    asyncio.run(after())
