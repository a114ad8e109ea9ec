"""Training in several processes: who they are, how a step is divided among them, and what happens when one of them ends."""
