"""The learn seam: what a learner can do, the worker that does it, and the system that a stage works with."""
