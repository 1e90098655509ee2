"""Tensors of the Open Inference Protocol: a request's bytes -> images, and probabilities -> an answer's bytes."""
