"""How well ages are estimated from anonymized faces: metrics and their intervals."""
