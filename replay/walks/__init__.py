"""Walks: which rmap_items a walk visits, and what every lookup strategy meets and misses there."""
