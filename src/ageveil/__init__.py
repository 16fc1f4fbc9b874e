"""Content-rating decisions from anonymized faces."""
