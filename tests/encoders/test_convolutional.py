"""Kim's CNN and Wang's FCN: equal to the plain modules of their papers on rows without padding."""
# B batch, L positions, C channels

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.base import InputSpec, Sequences
from encoders.cnn import CNN
from encoders.fcn import FCN


def whole(values: Tensor) -> Sequences:
    return Sequences(values=values, mask=torch.ones(values.shape[:2], dtype=torch.bool))


class TestCNN:
    def make(self, dropout: float = 0.0, widths: tuple[int, ...] = (2, 3)) -> CNN:
        torch.manual_seed(0)
        spec = InputSpec(max_length=9, vocab_size=20)
        return CNN(embedding=6, maps=4, widths=list(widths), dropout=dropout, spec=spec)

    def test_pooled_maps_are_those_of_windows_that_are_written_out(self) -> None:
        encoder = self.make().eval()
        ids_BL = torch.randint(6, 20, (3, 7))
        pooled = encoder(whole(ids_BL)).values.amax(1)
        x_BLE = encoder.embed.table.weight[ids_BL]
        expected = []
        for width, convolution in zip((2, 3), encoder.convolutions, strict=True):
            before = (width - 1) // 2
            padded = torch.cat([torch.zeros(3, before, 6), x_BLE, torch.zeros(3, width - 1 - before, 6)], dim=1)
            windows = torch.stack([padded[:, i : i + width].flatten(1) for i in range(7)], dim=1)  # (B, L, width E)
            weight = convolution.weight.transpose(1, 2).flatten(1)
            expected.append(torch.relu(windows @ weight.T + convolution.bias).amax(1))
        torch.testing.assert_close(pooled, torch.cat(expected, 1))

    def test_vectors_begin_uniform_within_a_quarter(self) -> None:
        spec = InputSpec(max_length=4, vocab_size=5000)
        table = CNN(embedding=20, maps=1, widths=[1], dropout=0.0, spec=spec).embed.table.weight.detach()
        assert float(table.abs().max()) <= 0.25
        assert float(table.std()) == pytest.approx(0.25 / 3**0.5, rel=0.01)

    def test_dropout_takes_whole_maps_so_that_pooling_sees_dropout_of_the_pooled(self) -> None:
        encoder = self.make(dropout=0.5)
        ids_BL = torch.randint(6, 20, (8, 7))
        clean = encoder.eval()(whole(ids_BL)).values
        encoder.train()
        torch.manual_seed(1)
        values = encoder(whole(ids_BL)).values
        pooled, before = values.amax(1), clean.amax(1)
        kept = pooled != 0
        torch.testing.assert_close(pooled[kept], 2 * before[kept])
        assert 0.3 < float(kept[before > 0].float().mean()) < 0.7

    @pytest.mark.parametrize("widths", [[], [0, 2], [3, 3]])
    def test_widths_that_are_none(self, widths: list[int]) -> None:
        with pytest.raises(ValueError, match="widths"):
            self.make(widths=tuple(widths))


class TestFCN:
    def make(self) -> FCN:
        torch.manual_seed(0)
        return FCN(dim=5, spec=InputSpec(max_length=30, channels=2))

    def test_equals_the_papers_stack_while_training_and_after(self) -> None:
        encoder = self.make()
        layers: list[nn.Module] = []
        for block, pad in zip(encoder.blocks, ((3, 4), (2, 2), (1, 1)), strict=True):  # of kernels 8, 5, 3, as Keras
            layers += [nn.ConstantPad1d(pad, 0.0), block.convolution, nn.BatchNorm1d(block.norm.num_features)]
            layers[-1].eps, layers[-1].momentum = 1e-3, 0.01
            layers.append(nn.ReLU())
        plain = nn.Sequential(*layers)
        x_BLC = torch.randn(4, 30, 2)
        for mode in (True, False):
            encoder.train(mode), plain.train(mode)
            torch.testing.assert_close(encoder(whole(x_BLC)).values, plain(x_BLC.transpose(1, 2)).transpose(1, 2))
        assert [block.convolution.kernel_size[0] for block in encoder.blocks] == [8, 5, 3]
        assert [block.convolution.out_channels for block in encoder.blocks] == [5, 10, 5]

    def test_weights_start_within_glorots_bound(self) -> None:
        torch.manual_seed(0)
        for block in FCN(dim=32, spec=InputSpec(max_length=30, channels=2)).blocks:
            outputs, inputs, kernel = block.convolution.weight.shape
            bound = (6 / (kernel * (inputs + outputs))) ** 0.5  # uniform, as Keras starts a convolution
            assert 0.98 * bound < float(block.convolution.weight.detach().abs().max()) <= bound
            assert not block.convolution.bias.any()

    def test_padding_does_not_enter_the_statistics(self) -> None:
        short, long = self.make(), self.make()
        x_BLC = torch.randn(3, 12, 2)
        mask_BL = torch.arange(20) < 12
        padded = Sequences(values=F.pad(x_BLC, (0, 0, 0, 8), value=7.0), mask=mask_BL.expand(3, 20))
        states = long(padded)
        torch.testing.assert_close(states.values[:, :12], short(whole(x_BLC)).values)
        for a, b in zip(short.buffers(), long.buffers(), strict=True):
            torch.testing.assert_close(a, b)
        assert not states.values[:, 12:].any()

    def test_ids_are_refused(self) -> None:
        with pytest.raises(ValueError, match="channels"):
            FCN(dim=4, spec=InputSpec(max_length=5, vocab_size=9))
