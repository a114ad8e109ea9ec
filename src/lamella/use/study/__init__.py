"""Studies: many short trainings, one question; a table, a picture, and the recipes that reproduce them."""
