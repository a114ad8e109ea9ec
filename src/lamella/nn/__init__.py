"""The parts that papers share: activations, dense layers, type embedding, environment matrix."""
