"""The store: finished stages under the hash of what they were made from, and digests of files and values."""
