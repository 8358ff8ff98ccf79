"""The denoising loop of the diffusion policy."""
