"""The networks: ours, and those of published weights."""
