"""How good an encoder is: tasks, their figures with intervals, and reports that stand models side by side."""
