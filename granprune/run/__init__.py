"""What a run is and leaves behind: its directory, checkpoints, records, progress and tracking."""
