"""Recovery: tuning the stored numbers of a packed model that cost no further bytes, its codes fixed."""
