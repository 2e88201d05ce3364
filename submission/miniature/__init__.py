"""The embedded default: tiny real models of each family, their language and their voice."""
