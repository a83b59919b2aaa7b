"""CorrCLIP: CLIP's last attention rebuilt from a vision model's correlations, inside regions."""
