"""What an account can be refused for.

    UnmaskError
    └── AccountError                    a user's account
        ├── KeyRefusedError             a key that opens nothing
        │   ├── MalformedKeyError       no key of ours: another form, or a typing error
        │   ├── UnknownKeyError         well formed, but nobody's
        │   ├── KeyExpiredError         its time is over
        │   └── KeyRevokedError         its owner withdrew it
        ├── KeyModelError               a key that is not for this model
        ├── LimitError                  a limit that the key's owner set
        │   ├── RateError               requests or tokens a minute
        │   ├── SpendingError           spending a day
        │   └── TooLargeError           one request with more tokens than the key may use in a whole minute
        ├── OutOfCreditError            the balance does not cover it; trying again does not help
        ├── HoldGoneError               a hold that was released, or has expired: it can be charged no more
        ├── IdempotencyError            an Idempotency-Key that cannot be used
        │   ├── RequestMismatchError    it came with another request before
        │   └── InProgressError         its first request is not yet answered
        ├── UnknownUserError            there is no such user
        ├── UserExistsError             the address is a user's already
        ├── UserDisabledError           an operator has shut the account
        ├── NoAdminError                who asks is no admin
        ├── UnknownKeyIdError           the user has no such key
        ├── TooManyKeysError            the user has as many keys as one may have
        ├── UnknownSessionError         the user has no such session
        ├── ReferenceUsedError          the reference stands for another payment
        ├── ThrottledError              it was tried too often
        ├── CsrfError                   a form that did not come from a page of ours
        ├── SignInError                 a sign-in that does not succeed
        │   ├── LinkGoneError           a link that was used, has expired, or never was one
        │   ├── OpenIdError             a provider's answer that is not to be trusted, or is a no
        │   └── IdentityTakenError      the account is tied to another identity at the same provider
        ├── ProviderDownError           a provider of identities that does not answer
        └── MailError                   a mail that could not be sent
            └── AddressRefusedError     because the mail server does not take the address

That the database cannot answer is an error of its own (``db/errors.py``). No message holds a key.
"""

from __future__ import annotations

from unmask.errors import UnmaskError


class AccountError(UnmaskError):
    """A user's account refuses."""


class KeyRefusedError(AccountError):
    """The key opens nothing."""


class MalformedKeyError(KeyRefusedError):
    """The text is no key: it has another form, or a typing error in it."""


class UnknownKeyError(KeyRefusedError):
    """The key is well formed, but nobody's."""


class KeyExpiredError(KeyRefusedError):
    """The key's time is over."""


class KeyRevokedError(KeyRefusedError):
    """The key was withdrawn."""


class KeyModelError(AccountError):
    """The key is not for this model."""


class LimitError(AccountError):
    """A limit that the key's owner set is reached.

    Attributes:
        kind: ``requests``, ``tokens`` or ``spending``.
        retry_after: seconds after which the same request may pass; None if it never will.
    """

    def __init__(self, message: str, *, kind: str, retry_after: float | None) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after = retry_after


class RateError(LimitError):
    """The key has used up its requests or tokens of a minute."""


class SpendingError(LimitError):
    """The key has spent what it may a day."""


class TooLargeError(LimitError):
    """One request has more tokens than the key may use in a whole minute."""


class OutOfCreditError(AccountError):
    """The balance does not cover it.

    Attributes:
        needed: micro-units.
        available: micro-units, those apart that are held for other requests.
    """

    def __init__(self, message: str, *, needed: int, available: int) -> None:
        super().__init__(message)
        self.needed = needed
        self.available = available


class HoldGoneError(AccountError):
    """The hold was released or has expired; nothing is charged."""


class IdempotencyError(AccountError):
    """The Idempotency-Key cannot be used for this request."""


class RequestMismatchError(IdempotencyError):
    """The Idempotency-Key came with another request before."""


class InProgressError(IdempotencyError):
    """The first request with this Idempotency-Key is not yet answered.

    Attributes:
        retry_after: seconds after which it may be.
    """

    retry_after: float = 1.0


class UnknownUserError(AccountError):
    """There is no such user."""


class UserExistsError(AccountError):
    """The address is a user's already."""


class UserDisabledError(AccountError):
    """An operator has shut the account: nobody signs in to it, and its keys open nothing."""

    def __init__(self) -> None:
        super().__init__("The account is disabled. Ask whoever runs this server.")


class NoAdminError(AccountError):
    """Who asks for what only admins do is none, or none any more."""


class UnknownKeyIdError(AccountError):
    """The user has no such key."""


class TooManyKeysError(AccountError):
    """The user has as many keys as one may have."""


class UnknownSessionError(AccountError):
    """The user has no such session."""


class ReferenceUsedError(AccountError):
    """The reference stands for another payment."""


class ThrottledError(AccountError):
    """It was tried too often.

    Attributes:
        retry_after: seconds after which it may be tried again.
    """

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class CsrfError(AccountError):
    """The form did not come from a page of ours that this browser was given."""


class SignInError(AccountError):
    """The sign-in does not succeed."""


class LinkGoneError(SignInError):
    """The link was used, has expired, or never was one of ours."""


class OpenIdError(SignInError):
    """The provider's answer is not to be trusted, or is a no."""


class IdentityTakenError(SignInError):
    """The account with this address is tied to another identity at the same provider."""


class ProviderDownError(AccountError):
    """A provider of identities does not answer as it should, or not now."""


class MailError(AccountError):
    """A mail could not be sent; trying again later may help."""


class AddressRefusedError(MailError):
    """The mail server does not take the address; trying again does not help."""
