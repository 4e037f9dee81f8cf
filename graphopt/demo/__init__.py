"""A convolutional network and an image pipeline on real data, run by `graphopt demo`."""
