"""Ways to tell a model's doubt, each a Classifier around another."""
