"""Findings: why mappings are missed, what made the trees large, who waited, what other walks would cost."""
