"""Datasets: their catalogue, the reading and changing of samples, the loaders."""
