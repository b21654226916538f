"""Scores of samples, for programs with or without a density; each says its sample sizes and features."""
