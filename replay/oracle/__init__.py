"""The oracle: the slow, obvious twins of the fast paths, in plain Python. Only tests use it."""
