"""A gateway in a process of its own that spends an account's credit.

    python -m tests.spender URL KEY USER COUNT NOW

Its clock stands still at NOW, microseconds since 1970. Asks for COUNT requests at once and prints how many were served;
with a COUNT of 0 it spends, eight requests at a time, until it is killed, and prints a line for each that it was told
is charged.
"""

from __future__ import annotations

import asyncio
import sys

from unmask.gateway.accounts.ledger import Ledger
from unmask.gateway.accounts.money import Hold, Order
from unmask.gateway.db.database import Database


def tell(line: str) -> None:
    """Write a line to standard output, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def main(url: str, key: int, user: int, count: int, now: int) -> None:
    """Spend."""
    some = Order(user_id=user, key_id=key, amount=1, model="m", units=1, tokens=1)
    async with Database(url) as database:
        ledger = Ledger(database, clock=lambda: now)

        async def forever() -> None:
            while True:
                hold = await ledger.reserve(some)
                assert isinstance(hold, Hold)
                await ledger.settle(hold)
                tell("charged")

        if not count:
            await asyncio.gather(*(forever() for _ in range(8)))
        # All of them begin when everybody is there.
        tell("ready")
        await asyncio.to_thread(sys.stdin.readline)
        results = await asyncio.gather(*(ledger.reserve(some) for _ in range(count)), return_exceptions=True)
        tell(str(sum(isinstance(result, Hold) for result in results)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:])))
