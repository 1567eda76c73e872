"""What the command line runs: a room for each command, and what the commands share."""
