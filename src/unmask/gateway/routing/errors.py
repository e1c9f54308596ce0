"""What a provider can fail with.

    UnmaskError
    ├── ServingError
    │   ├── ProviderError               one attempt at one provider failed; another provider may answer
    │   │   └── ProviderRefusedError    it will fail again until the operator mends something: key, name, address
    │   └── ProvidersFailedError        no provider answered
    ├── AddressError (InputError)       an address that requests must not be sent to
    └── ProviderStoreError              the operator's list of providers
        ├── UnknownProviderError        there is no such provider
        ├── ProviderExistsError         the model has one of that name
        └── ProviderKeyError            a key that cannot be opened with this secret

No message holds a key or a caller's text.
"""

from __future__ import annotations

from typing import Literal

from unmask.errors import InputError, ServingError, UnmaskError

#: ``malformed``: an answer that is none. ``refused``: what only the operator can mend.
Kind = Literal["connection", "time-out", "status", "malformed", "refused"]


class ProviderError(ServingError):
    """One attempt at one provider failed, and the caller is not to blame.

    Attributes:
        kind: of the failure.
    """

    def __init__(self, message: str, *, kind: Kind, retry_after: float | None = None) -> None:
        super().__init__(message, retry_after=retry_after)
        self.kind = kind


class ProviderRefusedError(ProviderError):
    """The provider will not answer until the operator mends something: its key, its address, the model's name there."""

    def __init__(self, message: str) -> None:
        super().__init__(message, kind="refused")


class ProvidersFailedError(ServingError):
    """No provider of the model answered."""


class AddressError(InputError):
    """Requests must not be sent to this address."""


class ProviderStoreError(UnmaskError):
    """The operator's list of providers cannot be used or changed as was asked."""


class UnknownProviderError(ProviderStoreError):
    """There is no such provider."""


class ProviderExistsError(ProviderStoreError):
    """The model has a provider of that name already."""


class ProviderKeyError(ProviderStoreError):
    """A provider's key was sealed with another secret than the server's, or was changed since."""
