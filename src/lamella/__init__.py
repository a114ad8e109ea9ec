"""lamella: large atomistic models (DPA-3) trained, evaluated and run."""
