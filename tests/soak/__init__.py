"""Mixed traffic for as long as one wants, and faults beside it (make soak)."""
