"""Triton's client: crops in, logits and probabilities out."""
