"""The gateway's database: tables, migrations, one writer that commits for many requests at once, backups."""
