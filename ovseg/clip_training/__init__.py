"""Training of CLIP: adapting it to masked regions, and pretraining a small one from nothing."""
