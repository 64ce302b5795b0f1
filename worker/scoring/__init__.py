"""Scores one chunk, from the claim to the commit, with the models of a worker process."""
