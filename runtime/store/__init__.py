"""Generated files: kept, found again, imported."""
