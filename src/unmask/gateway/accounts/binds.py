"""The parameters of statements, with their types: PostgreSQL guesses none."""

from __future__ import annotations

from sqlalchemy import BindParameter, Text, bindparam

from unmask.gateway.db.tables import Integer64


def number(name: str) -> BindParameter[int]:
    """Return a parameter that is a whole number."""
    return bindparam(name, type_=Integer64)


def words(name: str) -> BindParameter[str]:
    """Return a parameter that is text."""
    return bindparam(name, type_=Text)
