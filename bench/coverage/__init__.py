"""How many architectures can be pruned, with every result checked against the masked original."""
