"""What the recurrences of the CPU benchmark are measured against: plain PyTorch, written to be fast."""
