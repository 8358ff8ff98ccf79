"""The frozen world model as environments: imagined latents --> TorchRL, Gymnasium, Stable-Baselines3.

Three faces of one dynamics, `envs.dream.dynamics`; a dream is the same behind each of them.
"""

from envs.dream.dynamics import Dreams, Moment, Outcome
from envs.dream.gymnasium_env import DreamGymEnv
from envs.dream.sb3_env import DreamVecEnv
from envs.dream.torchrl_env import DreamEnv

__all__ = ["DreamEnv", "DreamGymEnv", "DreamVecEnv", "Dreams", "Moment", "Outcome"]
