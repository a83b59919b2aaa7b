"""Contrastive training: of CLIP on regions, and of one from nothing."""
