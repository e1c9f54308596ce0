"""Files of texts and pairs: opened, decoded line by line, and the fields of their records."""
