"""What every other package stands on: errors, mapped files, counters, log."""
