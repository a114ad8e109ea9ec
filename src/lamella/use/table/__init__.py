"""Errors of several models on many data sets, side by side (DPA-2 paper, Table 2)."""
