"""Pixel decoders, predictors and the heads that join them."""

from __future__ import annotations
