"""The `asl-fast` command line: one module a subcommand. Each parses, calls the library, prints."""
