"""What the models that are trained by gradient descent have in common: dropout, losses, the training loop, the port."""
