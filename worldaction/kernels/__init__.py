"""Operations of the latent rollout. ``<op>/reference.py`` is plain PyTorch, the definition that fast versions meet."""
