"""The joint search against single methods and a fixed sequence, at equal budget; and its latency model."""
