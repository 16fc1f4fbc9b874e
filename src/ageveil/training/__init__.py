"""Data sets that train and test an estimator; stands beside the way through and calls it."""
