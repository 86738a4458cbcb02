"""What all benchmarks share: samples and goals, processes, peers' environments, the report."""
