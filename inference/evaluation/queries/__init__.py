"""What one asks a fitted density: what is missing, what is odd, how short a code would be."""
