"""Hyper-parameters of DPA-3 (:mod:`lamella.models.dpa3`)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lamella.geometry.switch import Shell, SwitchKind
from lamella.nn.activation import activation
from lamella.nn.residual import UpdateStyle
from lamella.types import FrameInput

__all__ = ["DPA3Config"]


class DPA3Config(BaseModel):
    """Hyper-parameters of the DPA-3 backbone; the defaults are deepmd-kit's shipped example (L6, 128/64/32)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    element_heads: ClassVar[bool] = False  # one head network serves all elements

    kind: Literal["dpa3"] = "dpa3"
    layers: int = Field(6, ge=1, le=256)
    node_dim: int = Field(128, ge=1)
    edge_dim: int = Field(64, ge=1)
    angle_dim: int = Field(32, ge=1)
    cutoff: float = Field(6.0, gt=0, le=100)
    """Å; neighbours nearer than this are edges."""
    switch_start: float = Field(5.3, gt=0)
    angle_cutoff: float = Field(4.0, gt=0, le=100)
    """Å; edges shorter than this form angles."""
    angle_switch_start: float = Field(3.5, gt=0)
    switch: SwitchKind = "exponential"
    edge_sel: int = Field(120, ge=1)
    """Neighbours that the edge sums are normalised for. Nothing is cut away: see ``edge_norm``."""
    angle_sel: int = Field(30, ge=1)
    dynamic_sel: bool = False
    """Normalise by ``sel / sel_reduction`` (deepmd-kit's dynamic neighbour selection) instead of ``sel``."""
    sel_reduction: float = Field(10.0, gt=0)
    axis: int = Field(4, ge=1)
    update_angle: bool = True
    """False: line graph of order 1, no angles at all."""
    smooth_edge_update: bool = True
    """False: an edge outside the angle cutoff feeds itself to the angle update, so the energy is discontinuous there."""
    edge_init: Literal["distance", "switched_inverse"] = "distance"
    angle_compression: int = Field(1, ge=0)
    """Rate c by which node and edge features shrink before they enter an angle; 0 for none."""
    angle_compression_edge: int = Field(2, ge=1)
    angle_compression_kind: Literal["split", "linear"] = "split"
    messages: int = Field(1, ge=1, le=256)
    """Messages of node width per edge."""
    update_style: UpdateStyle = "res_residual"
    update_step: float = 0.1
    """Initial learned step of every update."""
    sequential: bool = False
    """Update edges, angles, edges again and nodes one after the other, each from what is newest, instead of all at once."""
    activation: str = "silut:10.0"
    env_std: float = Field(0.3, ge=0)
    """Constant scale of the environment matrix; 0 takes it from the training data."""
    concat_embedding: bool = False
    embedding_bias: bool = False
    electron_embedding: bool = False
    """Embed the electron configurations of the elements instead of the elements."""
    protection: float = Field(0.0, ge=0)
    """Å, added to r in the environment matrix."""
    excluded_pairs: tuple[tuple[str, str], ...] = ()
    """Pairs of elements, either way round, that do not see each other."""
    charge_spin: bool = False
    """Whether total charge and spin of a frame enter the initial node features."""
    default_charge_spin: tuple[float, float] | None = None
    """For frames that carry none; null where every frame must."""

    @property
    def edge_norm(self) -> float:
        """N_m of sums over edges."""
        return self.edge_sel / self.sel_reduction if self.dynamic_sel else float(self.edge_sel)

    @property
    def angle_norm(self) -> float:
        """N_m of sums over angles."""
        return self.angle_sel / self.sel_reduction if self.dynamic_sel else float(self.angle_sel)

    @property
    def angle_node_dim(self) -> int:
        """Width of a node inside an angle."""
        return self.angle_dim // self.angle_compression if self.angle_compression else self.node_dim

    @property
    def angle_edge_dim(self) -> int:
        """Width of an edge inside an angle."""
        if not self.angle_compression:
            return self.edge_dim
        return self.angle_dim * self.angle_compression_edge // (2 * self.angle_compression)

    @property
    def short_cutoff(self) -> float:
        """Longest edge of an angle, Å; 0 without angles."""
        return self.angle_cutoff if self.update_angle else 0.0

    @property
    def angles(self) -> bool:
        """Whether the graph lists angles."""
        return self.update_angle

    @property
    def shells(self) -> tuple[Shell, ...]:
        """Every cutoff, the longest first."""
        edge = Shell("cutoff", self.switch_start, self.cutoff, self.switch)
        angle = Shell("angle cutoff", self.angle_switch_start, self.angle_cutoff, self.switch)
        return (edge, angle) if self.update_angle else (edge,)

    @property
    def rough(self) -> tuple[str, ...]:
        """Which options break smoothness, and where."""
        read = self.layers > 1 or self.sequential  # else no node sees what angles did to edges
        if self.smooth_edge_update or not self.update_angle or not read:
            return ()
        jump = f"the energy jumps at {self.angle_cutoff:g} Å"
        return (f"smooth_edge_update: false feeds an edge longer than angle_cutoff to its own angle update: {jump}",)

    @property
    def inputs(self) -> tuple[FrameInput, ...]:
        """What is read of a frame beside its geometry."""
        if not self.charge_spin:
            return ()
        charge, spin = self.default_charge_spin or (None, None)
        return tuple(
            FrameInput(name, 1, None if value is None else (value,)) for name, value in (("charge", charge), ("spin", spin))
        )

    @property
    def output_dim(self) -> int:
        """Width of what the head reads."""
        return self.node_dim * (2 if self.concat_embedding else 1)

    @model_validator(mode="after")
    def _consistent(self) -> DPA3Config:
        activation(self.activation)
        if not self.switch_start < self.cutoff:
            raise ValueError(f"switch_start ({self.switch_start}) must lie below cutoff ({self.cutoff})")
        if not self.angle_switch_start < self.angle_cutoff:
            raise ValueError(
                f"angle_switch_start ({self.angle_switch_start}) must lie below angle_cutoff ({self.angle_cutoff})"
            )
        if self.sequential and not (self.update_angle and self.update_style == "res_residual"):
            raise ValueError("sequential needs update_angle: true and update_style: res_residual")
        if self.angle_cutoff > self.cutoff:
            raise ValueError(f"angle_cutoff ({self.angle_cutoff}) must not exceed cutoff ({self.cutoff})")
        if self.axis > min(self.node_dim, self.edge_dim):
            raise ValueError(f"axis ({self.axis}) must not exceed node_dim and edge_dim")
        if self.dynamic_sel and not self.smooth_edge_update:
            raise ValueError("dynamic_sel needs smooth_edge_update: true")
        if self.angle_compression:
            split = self.angle_compression_kind == "split"
            if (self.angle_dim * self.angle_compression_edge) % (2 * self.angle_compression):
                raise ValueError("angle_dim * angle_compression_edge must be divisible by 2 * angle_compression")
            if split and (self.angle_node_dim > self.node_dim or self.angle_edge_dim > self.edge_dim):
                raise ValueError("angle_compression_kind 'split' takes more channels than nodes or edges have")
        return self
