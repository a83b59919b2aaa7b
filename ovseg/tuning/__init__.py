"""Choosing the ensemble's settings: cached scores, sweep, report."""
