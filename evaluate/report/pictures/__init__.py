"""Pictures of a report, by matplotlib."""
