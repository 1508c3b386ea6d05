"""The rest of the pool: labels for every item by the model or its neighbours, and how far they can be trusted."""
