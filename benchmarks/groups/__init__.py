"""What is measured: each module returns cells of one group."""
