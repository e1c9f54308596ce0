"""Which provider answers: choice, health, retries, fail-over."""
