"""Boxes, masks, images, files and checks: small, and free of any model."""
