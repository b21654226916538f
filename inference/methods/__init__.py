"""Methods without a critic: exact, variational, expectation-maximisation, sampling; one file each."""
