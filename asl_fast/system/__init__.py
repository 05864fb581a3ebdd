"""The machine: errors, files written atomically, processes, devices."""
