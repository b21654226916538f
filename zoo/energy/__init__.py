"""Energy-based models: densities known up to a constant, which is the sum or integral of all they say."""
