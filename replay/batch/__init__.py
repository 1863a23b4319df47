"""Batches: many captures, each in a process of its own, and what a fleet of them has in common."""
