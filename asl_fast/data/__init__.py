"""Data sets on disk or in memory to shuffled, prefetched batches."""
