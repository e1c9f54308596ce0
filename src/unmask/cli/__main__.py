"""``python -m unmask.cli``."""

from unmask.cli import main

main()
