"""Weights for Ageveil that were trained on data for non-commercial research only. Holds files, no code."""
