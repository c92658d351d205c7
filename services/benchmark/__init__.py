"""Measures the whole service on a real stack, and what its processes do beside the networks."""
