"""An account to look around with: its owner is whoever started the gateway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from unmask.gateway.accounts.clock import DAY, microseconds
from unmask.gateway.accounts.errors import TooManyKeysError
from unmask.gateway.accounts.keyform import ApiKey
from unmask.gateway.hosting.gateway import Gateway

#: Nobody's mail comes here (RFC 2606); its sign-in links are written to the log.
DEMO: Final = "demo@example.org"
#: Of its keys.
_NAME: Final = "demo"


async def open_demo(gateway: Gateway, say: Callable[[str], None]) -> None:
    """Make the demo account if it is not there, and a key for today; say where to look.

    Args:
        gateway: a running one that mails nothing.
        say: takes a line. The key is in one of them: it is for the terminal, not for a log.
    """
    user, _ = await gateway.joining.enter(DEMO)
    if not user.admin:
        await gateway.users.set_admin(user.id, admin=True)
    key = await _new_key(gateway, user.id)
    url, model = gateway.settings.url, next(iter(gateway.settings.models))
    say(f"The site:   {url}")
    say(f"Sign in:    {url}/sign-in as {DEMO}; the link appears here. It is an admin: {url}/admin")
    say(f"Its key:    {key.reveal()} (for a day)")
    say(
        f"Call it:    curl {url}/v1/embeddings -H 'content-type: application/json' -H 'authorization: Bearer "
        f'{key.reveal()}\' -d \'{{"model": "{model}", "input": "how do I compress a file"}}\''
    )
    say(f"Stop it with Ctrl-C. Its data: {gateway.settings.folder}")


async def _new_key(gateway: Gateway, user_id: int) -> ApiKey:
    """Return a key for today; the oldest of those of before makes room for it where there is none."""
    until = microseconds() + DAY
    try:
        return (await gateway.keyring.issue(user_id, _NAME, expires_at=until))[1]
    except TooManyKeysError:
        for key in await gateway.keyring.of(user_id):
            if key.name == _NAME and key.is_live(microseconds()):
                await gateway.keyring.revoke(user_id, key.id)
                break
        return (await gateway.keyring.issue(user_id, _NAME, expires_at=until))[1]
