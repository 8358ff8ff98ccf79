"""Names that have moved: the state is in `worldaction.world_model.latent`, the core in `.cores.dreamer_v2`."""

from worldaction.world_model.cores.dreamer_v2 import RSSM as RSSM
from worldaction.world_model.latent import Latent as Latent
from worldaction.world_model.latent import Latents as Latents
from worldaction.world_model.latent import one_hot as one_hot
from worldaction.world_model.latent import straight_through as straight_through
