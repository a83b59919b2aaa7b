"""Runs of every kind, killed at moments spread over their length, and what they leave behind."""
