"""Finite rate of innovation: exact reconstruction from few samples, also of projections at unknown angles. In float64."""
