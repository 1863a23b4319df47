"""Figures: few enough points of the tables to draw, what each figure consists of, and pictures of them."""
