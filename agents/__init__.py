"""What acts: the diffusion policy, its cloning from demonstrations, its fine-tuning inside the frozen world model."""
