"""The service: a party asks, a browser answers with an anonymized face, the party gets a short signed answer.

Stands beside the way through, above `pipeline`; nothing of the way imports it. Needs the extra `service`.
"""
