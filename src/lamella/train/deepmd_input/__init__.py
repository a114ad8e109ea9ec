"""deepmd-kit's ``input.json`` and our recipes, both ways.

Every key of the one is translated to the other, or left out with a note because it does not change what is learned, or
refused by name. A key that is absent means what it means to ``dp --pt train`` (deepmd-kit 3.2.0), not what our recipes take.
"""

from lamella.train.deepmd_input.read import Translation, is_input, read_input
from lamella.train.deepmd_input.write import write_input

__all__ = ["Translation", "is_input", "read_input", "write_input"]
