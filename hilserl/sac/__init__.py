"""Soft actor-critic with prior data: networks, losses, update. Tensors in, tensors out."""
