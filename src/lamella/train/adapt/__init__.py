"""Training that starts from a model: which head, what is frozen, what is forgotten."""
