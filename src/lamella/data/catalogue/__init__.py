"""Public data sets by name: what they are, where they come from, and bringing them here."""
