"""Operations of the latent rollout. ``<op>/reference.py`` is plain PyTorch and is the definition that fast versions are held to."""
