"""Conversions of raw annotations, one module per data set: arrays in, arrays out."""
