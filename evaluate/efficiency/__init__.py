"""Speed and memory of decoding with a bundle, by the size of its batches, on this machine."""
