"""What goes wrong, as a page: one table from exceptions to a status, a sentence, and what to do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from starlette.exceptions import HTTPException

from unmask.errors import InputError, ServingError, UnknownModelError, UnmaskError
from unmask.gateway.accounts.errors import (
    AccountError,
    CsrfError,
    LinkGoneError,
    MailError,
    ProviderDownError,
    SignInError,
    ThrottledError,
    UnknownKeyIdError,
    UnknownSessionError,
    UnknownUserError,
    UserDisabledError,
)
from unmask.gateway.db.errors import DatabaseError


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How an exception is told to a visitor.

    Attributes:
        status: of the page.
        title: of it, a few words.
        sentence: what happened; None for the exception's own message.
        remedy: what to do.
        link: where to go on, and how the link is called.
    """

    status: int
    title: str
    sentence: str | None = None
    remedy: str = ""
    link: tuple[str, str] = ("/", "Go to the start page")


_LOST: Final = Rule(
    status=404,
    title="Not here",
    sentence="There is no page at this address.",
    remedy="Check the address, or look for the model in the list.",
    link=("/models", "See all models"),
)
_AGAIN: Final = ("/sign-in", "Sign in")

#: The one table: the row of an exception is that of the nearest of its classes.
RULES: Final[dict[type[BaseException], Rule]] = {
    InputError: Rule(status=422, title="That cannot be", remedy="Go back, correct it, and try again."),
    UnknownModelError: Rule(
        status=404,
        title="No such model",
        sentence="The catalogue has no model of this name.",
        remedy="It may have another name here; the list can be searched.",
        link=("/models", "See all models"),
    ),
    UnknownUserError: _LOST,
    UnknownKeyIdError: _LOST,
    UnknownSessionError: _LOST,
    UserDisabledError: Rule(
        status=403,
        title="Account disabled",
        sentence="Whoever runs this site has disabled the account: nobody can sign in to it, and its keys do not work.",
        remedy="Its credit and its files are kept. Write to the operator if you think that this is a mistake.",
    ),
    CsrfError: Rule(
        status=403, title="Not accepted", remedy="Nothing was changed. Go back, load the page again, and try once more."
    ),
    ThrottledError: Rule(status=429, title="Too often", remedy="Nothing was done. Wait, then try again."),
    LinkGoneError: Rule(
        status=410,
        title="Link no longer valid",
        remedy="Links work once, for 15 minutes.",
        link=("/sign-in", "Ask for a new link"),
    ),
    SignInError: Rule(status=403, title="Not signed in", remedy="You can also sign in by e-mail.", link=_AGAIN),
    ProviderDownError: Rule(
        status=503, title="Not signed in", remedy="You can sign in by e-mail instead.", link=_AGAIN
    ),
    MailError: Rule(
        status=503,
        title="No mail was sent",
        sentence="The mail could not be sent.",
        remedy="This is not your fault. Try again in a few minutes.",
        link=_AGAIN,
    ),
    AccountError: Rule(status=422, title="That cannot be", remedy="Nothing was changed."),
    DatabaseError: Rule(
        status=503,
        title="Accounts are away",
        sentence="The database cannot answer now.",
        remedy="Nothing was changed and nothing is charged meanwhile. Try again in a moment.",
    ),
    ServingError: Rule(status=503, title="The model cannot answer", remedy="Try again in a moment."),
    UnmaskError: Rule(status=422, title="That cannot be", remedy="Nothing was changed."),
    Exception: Rule(
        status=500,
        title="Something broke",
        sentence="The site failed on this request.",
        remedy="It has been noted. Try again; if it stays, tell us the number below.",
    ),
}

#: Pages for what has a status and no exception of ours.
STATUSES: Final[dict[int, Rule]] = {
    404: _LOST,
    405: Rule(
        status=405,
        title="Not like this",
        sentence="This address does not take that kind of request.",
        remedy="Open the page and use the form on it.",
    ),
    413: Rule(
        status=413,
        title="Too much",
        sentence="The form has more in it than is taken.",
        remedy="Go back and send less; for much text there is the API.",
        link=("/docs", "Read how to call it"),
    ),
    415: Rule(
        status=415,
        title="Not like this",
        sentence="This address takes a form, as browsers send it.",
        remedy="Open the page and use the form on it.",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """What a visitor is told.

    Attributes:
        rule: the row of the table.
        sentence: what happened.
        retry_after: seconds after which another try may succeed, None if not known.
    """

    rule: Rule
    sentence: str
    retry_after: int | None = None


def refusal_of(error: BaseException) -> Refusal:
    """Return what a visitor is told of an exception."""
    if isinstance(error, HTTPException):
        rule = STATUSES.get(error.status_code) or Rule(
            status=error.status_code, title=HTTPStatus(error.status_code).phrase, sentence="This cannot be done."
        )
    else:
        rule = next(RULES[kind] for kind in type(error).__mro__ if kind in RULES)
    wait = getattr(error, "retry_after", None)
    return Refusal(
        rule=rule,
        sentence=rule.sentence or str(error),
        retry_after=None if wait is None else max(1, math.ceil(wait)),
    )
