"""TransUNet: sizes and numbers of the official code, what pooling leaves out, how far attention sees.

The official code (Beckschen/TransUNet at 02ef001, vit_seg_modeling.py, run beside ours with every parameter, running
mean and variance filled by a formula) gave the logits of OFFICIAL; ours were apart from it by 9e-8 at most, and for the
published size at 224 pixels, by its own initial weights, by 2e-8. Gradients of the first convolution agreed to 1e-6.
"""
# B batch, C channels, h w sides of a map

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.base import Grid, InputSpec, Sequences
from encoders.blocks.masks import Sight
from encoders.systems.transunet_stem import StandardisedConv
from seqbench.build import build
from seqbench.composition.nodes import compose_node
from seqbench.errors import ConfigError
from tests.golden.test_encoders import wave

OFFICIAL: list[tuple[dict[str, Any], list[float], float]] = [  # switches; four logits; root mean square of all
    ({}, [0.0823, -0.07621, -0.1144, -0.07625], 0.07209),
    ({"skips": 1}, [0.10091, -0.02603, -0.13892, -0.02603], 0.0613),
    ({"depth": 0}, [0.28211, 0.04094, 0.22239, 0.04092], 0.31919),
    ({"stem": "patches", "skips": 0}, [0.11082, 0.07161, 0.10441, 0.07161], 0.06485),
]


def spec_of(height: int, width: int, *, colours: int = 1, patch: int = 16) -> InputSpec:
    grid = Grid(rows=height // patch, columns=width // patch, patch=patch)
    return InputSpec(max_length=grid.rows * grid.columns, channels=colours * patch**2, grid=grid)


def make(name: str = "transunet", *, spec: InputSpec | None = None, **changes: Any) -> Any:
    torch.manual_seed(0)
    node = {**compose_node("encoder", name), **changes}
    return build(node, "encoder", ["encoders"], spec=spec or spec_of(64, 64)).eval()


def source(encoder: Any, image_BChw: Tensor) -> Sequences:
    values = encoder.grid.line_up(image_BChw).reshape(len(image_BChw), encoder.spec.max_length, -1)
    return Sequences(values=values, mask=torch.ones(values.shape[:2], dtype=torch.bool))


def states(encoder: Any, image_BChw: Tensor) -> Tensor:
    """As a map (B, D, h, w)."""
    found: Tensor = encoder.grid.lay_out(encoder(source(encoder, image_BChw)).values)
    return found


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# -- sizes ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("skips, official", [(0, 103765657), (1, 104945305), (2, 105240217), (3, 105277081)])
def test_published_parameters(skips: int, official: int) -> None:
    with torch.device("meta"):
        encoder = make("published/transunet_r50_vit_b16", spec=spec_of(224, 224), skips=skips)
    assert parameters(encoder) + 16 * 9 * 9 + 9 == official  # and the head, for nine classes
    assert parameters(encoder.stem) == 11894848
    assert encoder.position.shape == (196, 768)
    if skips == 3:
        assert parameters(encoder.decoder) == 7387200
        assert parameters(encoder) - 7387200 == 97888576


@pytest.mark.parametrize("depth, expected", [(0, 1718210), (2, 1983170), (4, 2248130)])
def test_small_parameters(depth: int, expected: int) -> None:
    assert parameters(make(depth=depth)) + 16 * 9 * 2 + 2 == expected  # and the head, for two classes


def test_maps_of_the_published_stem_and_the_row_that_pooling_leaves_out() -> None:
    stem = make("published/transunet_r50_vit_b16", spec=spec_of(224, 224), depth=0).stem
    x_BChw, skips = stem(wave(1, 3, 224, 224))
    assert x_BChw.shape == (1, 1024, 14, 14)
    assert [tuple(skip.shape[1:]) for skip in skips] == [(512, 28, 28), (256, 56, 56), (64, 112, 112)]
    assert not skips[1][..., 55, :].any()
    assert not skips[1][..., 55].any()
    assert skips[1][..., 54, :55].abs().mean() > 0.1
    assert skips[0][..., 27, :].abs().mean() > 0.1
    assert skips[2][..., 111, :].abs().mean() > 0.1


@pytest.mark.parametrize("height, width", [(16, 16), (32, 80), (48, 64)])
@pytest.mark.parametrize("changes", [{}, {"decoder": "none", "skips": 0}, {"stem": "patches", "skips": 0}])
def test_sides_of_any_multiple_of_16(height: int, width: int, changes: dict[str, Any]) -> None:
    for patch in (16, 32) if height == 32 and width % 32 == 0 else (16,):
        encoder = make(spec=spec_of(height, width, patch=patch), **changes)
        finer = 16 if changes.get("decoder") == "none" else 1
        dim = 128 if finer == 16 else 16
        assert states(encoder, wave(2, 1, height, width)).shape == (2, dim, height // finer, width // finer)


def test_squares_of_any_size_are_the_same_image() -> None:
    image = wave(2, 1, 64, 64)
    for changes in ({}, {"decoder": "none", "skips": 0}):
        small, large = (make(spec=spec_of(64, 64, patch=patch), **changes) for patch in (16, 32))
        assert torch.equal(states(small, image), states(large, image))


@torch.no_grad()
def test_a_crop_of_one_patch_stands_alone_as_among_others() -> None:
    """Its map at 1/16 is a single place, whose group norm leaves the biases; PyTorch would refuse a batch of one."""
    encoder, image = make(spec=spec_of(16, 16)), wave(2, 1, 16, 16)
    torch.testing.assert_close(states(encoder, image[:1]), states(encoder, image)[:1])
    norm = encoder.stem.blocks[2][0].shortcut[1]
    norm.bias.copy_(wave(512))
    torch.testing.assert_close(norm(wave(1, 512, 1, 1)).flatten(), wave(512), atol=1e-4, rtol=0)


def test_a_crop_of_one_patch_trains_alone() -> None:
    """The first norm of the decoder has one value a channel: by its averages so far, which it leaves as they are."""
    encoder = make(spec=spec_of(16, 16)).train()
    norm = encoder.decoder.first[1]
    with torch.no_grad():
        norm.running_mean.copy_(wave(512))
        x_BDhw = encoder.decoder.first[0](wave(1, 128, 1, 1))
        expected = F.relu((x_BDhw - wave(512)[None, :, None, None]) / (1 + norm.eps) ** 0.5)
        torch.testing.assert_close(encoder.decoder.first(wave(1, 128, 1, 1)), expected)
    found = states(encoder, wave(1, 1, 16, 16))
    assert torch.equal(norm.running_mean, wave(512))
    [gradient] = torch.autograd.grad(found.square().sum(), encoder.decoder.first[0].weight)
    assert gradient.any()
    encoder.decoder.first(wave(1, 128, 1, 2))  # of two places there are statistics
    assert not torch.equal(norm.running_mean, wave(512))


# -- numbers -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("changes, logits, root_mean_square", OFFICIAL)
def test_official_logits(changes: dict[str, Any], logits: list[float], root_mean_square: float) -> None:
    encoder = make(**changes)
    start = 0
    with torch.no_grad():
        for parameter in encoder.parameters():
            scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.5
            parameter.copy_(scale * wave(*parameter.shape, start=start))
            start += parameter.numel()
        for i, (name, buffer) in enumerate(encoder.named_buffers()):
            if name.endswith("running_mean"):
                buffer.copy_(0.1 * wave(*buffer.shape, start=i))
            if name.endswith("running_var"):
                buffer.copy_(1 + 0.5 * wave(*buffer.shape, start=i))
        map_BDhw = states(encoder, wave(2, 1, 64, 64))
        found = F.conv2d(map_BDhw, 0.1 * wave(2, 16, 3, 3), 0.5 * wave(2), padding=1)
    at = [(0, 0, 0, 0), (0, 1, 31, 17), (1, 0, 63, 63), (1, 1, 5, 40)]
    assert [float(found[place]) for place in at] == pytest.approx(logits, abs=1.5e-5)
    assert float(found.square().mean().sqrt()) == pytest.approx(root_mean_square, abs=1.5e-5)


def test_standardised_convolution() -> None:
    conv = StandardisedConv(2, 3, 3).double()
    weight = np.cos(np.arange(54)).reshape(3, 2, 3, 3)
    image = np.sin(np.arange(32)).reshape(1, 2, 4, 4)
    flat = weight.reshape(3, -1)
    filters = ((flat - flat.mean(1, keepdims=True)) / np.sqrt(flat.var(1, keepdims=True) + 1e-5)).reshape(weight.shape)
    padded = np.pad(image[0], ((0, 0), (1, 1), (1, 1)))
    expected = np.array(
        [[[(padded[:, i : i + 3, j : j + 3] * f).sum() for j in range(4)] for i in range(4)] for f in filters]
    )
    assert expected.sum() == pytest.approx(-18.736153, abs=1e-5)  # of the sheet, in float32
    assert expected[:, 1, 2] == pytest.approx([5.517574, -0.344714, -6.104356], abs=5e-6)
    for scale, shift in ((1.0, 0.0), (50.0, -3.0)):  # of the filters: nothing, up to the 1e-5
        with torch.no_grad():
            conv.weight.copy_(torch.tensor(scale * weight + shift))
            found = conv(torch.tensor(image))
        np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-12 if scale == 1 else 5e-4)


@torch.no_grad()
def test_layers_begin_and_normalise_as_in_the_official_code() -> None:
    layer = make().layers[0]
    assert (layer.attention_norm.eps, layer.norm.eps, make().norm.eps) == (1e-6, 1e-6, 1e-6)
    for linear in (layer.feed_forward.up, layer.feed_forward.down):  # Xavier's: uniform, the same bound for both
        assert 0.98 * (6 / (128 + 256)) ** 0.5 < float(linear.weight.abs().max()) <= (6 / (128 + 256)) ** 0.5
        assert 0 < float(linear.bias.abs().max()) < 1e-5
    stem = make("published/transunet_r50_vit_b16", spec=spec_of(16, 16), depth=0).stem
    norms = {name: norm for name, norm in stem.named_modules() if isinstance(norm, nn.GroupNorm)}
    assert len(norms) == 1 + 3 * 16 + 3
    for name, norm in norms.items():
        own = ".shortcut." in name  # of a channel each, with PyTorch's eps
        assert (norm.num_groups, norm.eps) == ((norm.num_channels, 1e-5) if own else (32, 1e-6))


@torch.no_grad()
def test_positions_begin_as_wide_as_they_are_told() -> None:
    for std in (0.02, 0.2):
        assert float(make(position_std=std).position.std()) == pytest.approx(std, rel=0.1)
    assert not make("published/transunet_r50_vit_b16", depth=0, units=[1, 1, 1]).position.any()


def test_dropout_is_of_the_embedding_and_in_each_feed_forward() -> None:
    encoder = make(dropout=0.5).train()
    called: list[str] = []
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(lambda *_, name=name: called.append(name))
    encoder(source(encoder, wave(2, 1, 64, 64)))
    inside = [f"layers.{i}.{part}" for i in range(2) for part in ("feed_forward.dropout", "dropout")]
    assert called == ["dropout", *inside]
    x_BPD = torch.randn(1, 16, 128)
    for dropout, attention_dropout in ((0.5, 0.0), (0.0, 0.5)):
        layer = make(dropout=dropout, attention_dropout=attention_dropout).train().layers[0]
        one, other = (layer.attention(x_BPD, Sight(None, False), None, None)[0] for _ in range(2))
        assert torch.equal(one, other) is (attention_dropout == 0)


def test_published_values_that_no_count_shows() -> None:
    published = compose_node("encoder", "published/transunet_r50_vit_b16")
    expected = {"heads": 12, "dropout": 0.1, "attention_dropout": 0.0, "position_std": 0.0, "skips": 3, "stem": "cnn"}
    assert {key: published[key] for key in expected} == expected


# -- what sees what ------------------------------------------------------------------------------------------------
def test_without_layers_a_norm_alone_stands_before_the_decoder() -> None:
    encoder = make(depth=0)
    image = wave(2, 1, 64, 64)
    x_BChw, skips = encoder.stem(image.expand(-1, 3, -1, -1))
    x_BDhw = encoder.embed(x_BChw)
    x_BPD = F.layer_norm(x_BDhw.flatten(2).transpose(1, 2) + encoder.position, (128,), eps=1e-6)
    expected = encoder.decoder(x_BPD.transpose(1, 2).reshape(x_BDhw.shape), skips)
    torch.testing.assert_close(states(encoder, image), expected)


def test_places_have_no_order_but_by_their_positions() -> None:
    """Without a decoder and with patches of pixels a state is a place: changing places changes places of states."""
    encoder = make(stem="patches", decoder="none", skips=0, position_std=0.0)
    given = source(encoder, wave(2, 1, 64, 64))
    order = torch.randperm(16, generator=torch.Generator().manual_seed(3))
    turned = Sequences(values=given.values[:, order], mask=given.mask)
    torch.testing.assert_close(encoder(turned).values, encoder(given).values[:, order], atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        encoder.position.normal_()
    assert (encoder(turned).values - encoder(given).values[:, order]).abs().max() > 1e-2


@pytest.mark.parametrize("depth, reaches", [(0, False), (1, True)])
def test_attention_reaches_across_the_image_and_convolutions_do_not(depth: int, reaches: bool) -> None:
    """With norms over the image taken out: a change of the left edge in the states of the right."""
    encoder = make(spec=spec_of(32, 256), depth=depth).double()  # without norms numbers grow
    for module in list(encoder.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(module, name, nn.Identity())
    image = wave(1, 1, 32, 256).double()
    other = image.clone()
    other[..., :16] += 1
    moved = (states(encoder, image) - states(encoder, other)).abs().amax((0, 1, 2))
    assert moved[0] > 1e-6
    assert bool(moved[255] > 0) is reaches


def test_each_skip_is_read_and_those_left_out_are_not() -> None:
    for skips in range(4):
        encoder = make(skips=skips)
        first = [block[0][0].in_channels for block in encoder.decoder.blocks]
        joined = [256, 128, 32][:skips]
        assert first == [a + b for a, b in zip((512, 64, 32, 16), (*joined, 0, 0, 0, 0), strict=False)]
        _, maps = encoder.stem(wave(1, 3, 64, 64))
        x_BDhw = wave(1, 128, 4, 4)
        before = encoder.decoder(x_BDhw, maps[:skips])
        for i in range(skips):
            changed = [m + (j == i) for j, m in enumerate(maps[:skips])]
            assert (encoder.decoder(x_BDhw, changed) - before).abs().max() > 1e-4, i


def test_grey_is_three_equal_colours() -> None:
    grey, colour = make(), make(spec=spec_of(64, 64, colours=3))
    colour.load_state_dict(grey.state_dict())
    image = wave(2, 1, 64, 64)
    torch.testing.assert_close(states(grey, image), states(colour, image.expand(-1, 3, -1, -1)))


def test_equal_parameters_for_the_baselines_of_the_claim() -> None:
    """Beside two layers: one more unit at 1/16 for the CNN alone, and a pure Transformer, within 1 %."""
    hybrid, unet = parameters(make()), parameters(make(depth=0, units=[1, 1, 2]))
    assert unet == pytest.approx(hybrid, rel=0.01)
    assert unet >= hybrid


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"spec": InputSpec(max_length=16, vocab_size=9)}, "reads images alone"),
        ({"spec": InputSpec(max_length=16, channels=256)}, "reads images alone"),
        ({"spec": spec_of(64, 64, patch=8)}, "task.patch to 16"),
        ({"stem": "patches"}, "use skips=0"),
        ({"decoder": "none"}, "use skips=0"),
        ({"decoder_channels": [512, 64, 32, 16]}, "give five"),
        ({"units": [1, 1]}, "give three numbers"),
        ({"stem_width": 48}, "stem_width: 48 channels; use 64, which 32 divides"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**changes)
