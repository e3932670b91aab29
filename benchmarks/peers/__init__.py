"""Other libraries that run recurrences of the zoo: what they are called with, and nothing of theirs."""
