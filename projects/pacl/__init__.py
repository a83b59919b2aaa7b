"""PACL: patches of a frozen CLIP that are aligned with captions through a small trained embedder.

Source: Mukhoti et al., "Open Vocabulary Semantic Segmentation with Patch Aligned Contrastive
Learning", CVPR 2023 (arXiv 2212.04994).
"""
