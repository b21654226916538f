"""What is measured in a cell of a suite, one file for each kind."""
