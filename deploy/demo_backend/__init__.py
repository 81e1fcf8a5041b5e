"""A demo backend: an HTTP program that runs pretended long jobs, for `make demo` and the tests."""
