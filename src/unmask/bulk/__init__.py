"""Many texts: read from files, vectors written to files, search among them."""
