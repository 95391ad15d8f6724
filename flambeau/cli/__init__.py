"""The command line: `flambeau run`, `demo`, `bench`, `info`."""
