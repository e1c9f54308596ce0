"""How the schema came about, a step a module; ``env.py`` is Alembic's way in."""
