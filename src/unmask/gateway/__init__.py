"""The hosted API."""
