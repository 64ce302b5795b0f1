"""What the benchmarks share: the run, its figures, pictures, connections and synthetic jobs."""
