"""A decoder made bidirectional, and proved to be."""
