"""One file for each piece of work that is timed, written out for every contender."""
