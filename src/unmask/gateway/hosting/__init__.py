"""The whole gateway: API, accounts, catalogue, routing and pages put together."""
