"""Which windows of the play a film of open-loop predictions shows."""

from __future__ import annotations

import torch

from experiments.stages.fidelity import _apart


def test_windows_of_a_film_share_no_frame_and_come_in_the_order_of_what_moves() -> None:
    first = torch.tensor([10, 12, 40, 300, 14])
    frames = first[:, None] + torch.arange(20)
    order = torch.tensor([1, 0, 4, 3, 2])
    assert _apart(order, frames, count=3).tolist() == [1, 3, 2]
    assert _apart(order, frames, count=1).tolist() == [1]
    # a short recording has fewer of them
    assert _apart(torch.tensor([0, 1, 4]), frames, count=3).tolist() == [0]
