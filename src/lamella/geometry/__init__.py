"""Pure functions of arrays: neighbours, graphs, switches, segment sums, derivatives."""
