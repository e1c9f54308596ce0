"""What the gateway's database can fail with.

    UnmaskError
    └── DatabaseError                   the gateway's database
        ├── DatabaseUnavailableError    it cannot answer now: gone, locked, full; nothing is free meanwhile
        ├── SchemaError                 its tables are of another version of Unmask, or none of Unmask's
        └── BackupError                 a backup cannot be made, or not be put back

No message holds a value of a statement or a password: a value may be a digest or somebody's address.
"""

from __future__ import annotations

from unmask.errors import UnmaskError


class DatabaseError(UnmaskError):
    """The gateway's database cannot be used as was asked."""


class DatabaseUnavailableError(DatabaseError):
    """The database cannot answer now. What was asked for counts as not done.

    Where the connection broke while a transaction was being committed, it may have been done all the same. All that
    the accounts write can therefore be asked for again: it is done once.

    Attributes:
        retry_after: seconds after which another try may succeed.
    """

    retry_after: float = 1.0


class SchemaError(DatabaseError):
    """The tables are not those that this version of Unmask works on."""


class BackupError(DatabaseError):
    """A backup cannot be made or put back; what was there before is untouched."""
