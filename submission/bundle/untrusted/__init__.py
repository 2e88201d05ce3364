"""Reading an untrusted bundle: bounded, without following links, and without running anything."""
