"""Models side by side: one table, tests of the differences, published figures, and a page with plots."""
