"""Word level: sentences with a tag for each word, the states of the words, and a linear probe on them."""
