"""Other servers and pipelines that score the same pictures with the same model."""
