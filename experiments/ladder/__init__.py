"""From a causal language model to an encoder, step by step, on development sets: `python -m experiments.ladder`."""
