"""How anonymous an anonymized face is: attacks that are run, and what they recover."""
