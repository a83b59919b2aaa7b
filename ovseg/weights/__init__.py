"""Weights: where files come from, their formats and names, and strict loading."""
