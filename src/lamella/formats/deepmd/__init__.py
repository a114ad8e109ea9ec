"""deepmd-kit's PyTorch models: weights and configuration, both ways."""

from lamella.formats.deepmd.model import model_config
from lamella.formats.deepmd.read import potential_from_state, read
from lamella.formats.deepmd.write import slots_of, state_from_potential, write

__all__ = ["model_config", "potential_from_state", "read", "slots_of", "state_from_potential", "write"]
