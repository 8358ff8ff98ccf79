"""Faster float32 products are float32 products, and what was set before is set again."""

from __future__ import annotations

import pytest
import torch

from worldaction.kernels import cpu_matmul as products
from worldaction.kernels.cpu_matmul import fast_float32


@pytest.mark.parametrize(("rows", "inner", "columns"), [(1, 512, 512), (16, 456, 768), (300, 1000, 40), (768, 16, 456)])
def test_products_and_their_gradients_are_as_exact_as_ever(rows: int, inner: int, columns: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, inner, generator=generator, requires_grad=True)
    w = torch.randn(columns, inner, generator=generator, requires_grad=True)
    weights = torch.randn(rows, columns, generator=generator)
    with fast_float32():
        value = torch.nn.functional.linear(x, w)
        found = [value, *torch.autograd.grad((value * weights).sum(), (x, w))]
    value = x.double() @ w.double().T
    wanted = [value, *torch.autograd.grad((value * weights).sum(), (x, w))]
    for one, other in zip(found, wanted, strict=True):
        assert (one.double() - other.double()).norm() < 1e-6 * other.double().norm()


def test_what_was_set_before_is_set_again_after_an_error_too() -> None:
    before = torch.get_float32_matmul_precision()
    with pytest.raises(KeyError), fast_float32():
        raise KeyError
    assert torch.get_float32_matmul_precision() == before


def test_a_choice_of_the_users_is_left_alone() -> None:
    torch.set_float32_matmul_precision("high")
    try:
        with fast_float32():
            assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_where_products_would_lose_digits_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_error", lambda rows, generator: 3e-3)
    products.onednn_is_better.cache_clear()
    try:
        with fast_float32():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        products.onednn_is_better.cache_clear()
