"""Judge what was trained: the third floor."""
