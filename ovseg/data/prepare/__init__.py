"""Conversions of raw annotations, one module per dataset: arrays in, arrays out."""
