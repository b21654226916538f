"""Methods side by side on the same program and the same data."""
