"""What pays on an NVIDIA GPU."""
