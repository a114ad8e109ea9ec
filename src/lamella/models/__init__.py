"""One paper, one file; heads; and the potential that joins a backbone, heads and per-element baselines."""
