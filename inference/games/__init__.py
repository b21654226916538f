"""Methods that play: a program, or its guide, against a critic that tells samples from data."""
