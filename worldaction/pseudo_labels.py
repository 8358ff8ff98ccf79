"""Actions that nobody recorded, named by a trained inverse model (arXiv 2506.06006, Bootstrapping World Models)

Which action lies between two frames is easier to learn than what an action leads to, so a few recorded actions are
enough to name those of the rest, and the rest is enough to learn a world model from.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from worldaction.errors import UserError
from worldaction.latents import embed_frames
from worldaction.losses.inverse_dynamics import InverseDynamics
from worldaction.play.store import PlayStore
from worldaction.spec import ACTION, ACTION_MASK, PREVIOUS_ACTION
from worldaction.world_model.model import WorldModel


@torch.no_grad()
def label_actions(store: PlayStore, model: WorldModel, *, trusted: bool = False) -> PlayStore:
    """A store whose unknown actions are those that a world model's inverse model reads off the frames.

    The recurrent model is then fed them instead of the null action. The last action of an episode, after which nothing
    was seen, stays unknown.

    Args:
        store: with `action_mask`; stays as it is. Without one all actions are known, and it is given back itself.
        model: trained with inverse_dynamics on the known actions, and loaded with that loss.
        trusted: whether the named actions count as known, so that losses learn from them too.

    Raises:
        UserError: the model has no inverse dynamics of single steps.
    """
    mask = store.frames.get(ACTION_MASK, None)
    if mask is None:
        return store
    inverse = model.each_loss().get("inverse_dynamics")
    if not isinstance(inverse, InverseDynamics) or inverse.options.steps != 1:
        has = "steps above 1" if isinstance(inverse, InverseDynamics) else f"the losses {list(model.losses)}"
        raise UserError(f"a model with {has} cannot name actions; train and load one with inverse_dynamics,steps=1")
    action, known = store.frames[ACTION].clone(), mask.clone()
    for episode in store.episodes:
        frames = torch.arange(episode.start, episode.stop)
        unknown = frames[:-1][~mask[frames[:-1]]]
        if len(unknown):
            named = _between(inverse, embed_frames(model, store.frames, frames), store.meta.layout.binary)
            action[unknown] = named[unknown - episode.start]
            known[unknown] = True
    labelled = copy.copy(store)
    labelled.frames = store.frames.copy().update(
        {ACTION: action, PREVIOUS_ACTION: _previous(store, action), ACTION_MASK: known if trusted else mask}
    )
    return labelled


def _between(inverse: InverseDynamics, embed: Tensor, binary: tuple[int, ...]) -> Tensor:
    """Actions [T - 1, A] between successive embeddings [T, E], as a robot could have been given them."""
    named = inverse.predict(embed[:-1], embed[1:]).clamp(-1.0, 1.0).cpu()
    for number in binary:
        named[:, number] = torch.where(named[:, number] >= 0.0, 1.0, -1.0)
    return named


def _previous(store: PlayStore, action: Tensor) -> Tensor:
    """The action before each frame, [N, A]; as it was where an episode begins."""
    previous = store.frames[PREVIOUS_ACTION].clone()
    for episode in store.episodes:
        previous[episode.start + 1 : episode.stop] = action[episode.start : episode.stop - 1]
    return previous
