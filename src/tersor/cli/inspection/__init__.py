"""Looking into files without running them: one file a format, each a function from a path to an Inspection."""
