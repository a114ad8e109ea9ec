"""``lamella demo``: the life of a large atomistic model in miniature, in minutes, on data that come with the package."""

from lamella.use.demo.config import Demo, Show
from lamella.use.demo.run import free_folder, run_demo

__all__ = ["Demo", "Show", "free_folder", "run_demo"]
