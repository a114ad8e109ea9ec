"""What people do with a model: predict, evaluate, run dynamics, relax, report."""
