"""Training data: sources are read once, tokenised, and kept on disk as rows that any step can look up."""
