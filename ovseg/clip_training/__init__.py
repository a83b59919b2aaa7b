"""Contrastive training: of CLIP on regions, of one from nothing, of a backbone beside one."""
