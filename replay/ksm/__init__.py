"""KSM over modelled trees: stable nodes, rmap_items and walks from stock events, and what is sure of them."""
