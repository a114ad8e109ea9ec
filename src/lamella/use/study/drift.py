"""Drift of the total energy in molecular dynamics without thermostat (DPA-2 paper, Fig. S3).

The score beside the drift is LAMBench's instability, max(0, log10(|slope| / 5e-4 eV/atom/ps)), and 5 for a run that ended early.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from pydantic import Field

from lamella.train.state import write_file
from lamella.use.calculator import Calculator
from lamella.use.dynamics import MDResult, run_md
from lamella.use.settings import MDConfig
from lamella.use.study.chart import Line, Panel
from lamella.use.study.report import Report
from lamella.use.study.trial import slug
from lamella.use.table.answer import Calculated, FromFile, Learned
from lamella.use.table.reference import respondents

__all__ = ["DriftConfig", "drift"]
