"""perf.data: the container, its records and samples."""
