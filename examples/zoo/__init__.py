"""Recurrences from the literature, one `.rec` file each; installed as `recurra.zoo`."""
