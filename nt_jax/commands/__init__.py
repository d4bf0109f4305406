"""One module a command: `arguments(parser)` declares its options, `run(options)` does it.

`run` returns the exit code (None is 0). The command line imports the module of the command that is
named and no other, so that `nt-jax --help` and a misspelt option answer at once; a module imports
the rooms that it needs inside `run`, for the same reason.
"""
