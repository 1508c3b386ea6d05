"""What the images are made of: locks with hashes, and under which licences the locked packages come."""
