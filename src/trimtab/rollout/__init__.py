"""Sampling: engines behind one protocol, and the collection of rollouts."""
