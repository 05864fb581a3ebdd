"""What is measured on one machine's GPU, within a budget of seconds: `scripts/gpu_report`."""
