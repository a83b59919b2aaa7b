"""PnP-OVSS: an image-text matcher's cross-attention as segmentation; see README.md."""
