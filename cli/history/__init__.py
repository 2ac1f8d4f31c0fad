"""`orders replay`: folds the log, one stream or all of it, in one read-only snapshot."""
