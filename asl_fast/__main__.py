"""`python -m asl_fast` is `asl-fast`."""

from asl_fast.commands.cli import main

if __name__ == "__main__":
    main()
