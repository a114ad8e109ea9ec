"""Frames in, batches out: readers, the on-disk store, baselines, statistics, packing, worker processes, lint."""
