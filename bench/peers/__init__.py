"""tersor beside the tools that do a part of the same work, on the same models, data, time and machine."""
