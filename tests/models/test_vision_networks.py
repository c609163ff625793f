"""VGG and pre-activation ResNet: sizes, initial weights, scale invariance, refused settings, compilation."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from decaylab import data
from decaylab.errors import DecaylabError
from decaylab.models import preact_resnet, vgg16, vgg_small


def _count(model):
    return sum(p.numel() for p in model.parameters())


def _images(number=8, channels=1, size=8, seed=0):
    return torch.randn(number, channels, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("build", "count"),
    [
        (lambda: preact_resnet(18), 11_172_176),
        (lambda: preact_resnet(34), 21_280_336),
        (lambda: preact_resnet(34, num_classes=100), 21_326_506),
        (lambda: preact_resnet("small", in_channels=1, width=8), 44_130),
        (lambda: vgg16(), 15_245_130),
        (lambda: vgg16(batch_norm=True), 15_253_578),
        (lambda: vgg_small(), 19_426),
    ],
)
def test_parameter_counts(build, count):
    with torch.device("meta"):
        assert _count(build()) == count


@pytest.mark.parametrize("depth", [18, 34])
def test_resnets_have_as_many_weighted_layers_as_their_name_says(depth):
    with torch.device("meta"):
        model = preact_resnet(depth)
    shortcuts = {id(block.shortcut) for block in model.blocks}
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear) and id(m) not in shortcuts]
    assert len(layers) == depth


def test_vgg16_has_sixteen_weighted_layers():
    with torch.device("meta"):
        model = vgg16()
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules()) == 16


@pytest.mark.parametrize("build", [preact_resnet, vgg16])
def test_logits_of_cifar_images(build):
    assert build(num_classes=100, width=4)(_images(2, 3, 32)).shape == (2, 100)


def test_he_initialisation():
    torch.manual_seed(0)
    model = preact_resnet(18, width=16)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan = module.out_channels * module.kernel_size[0] ** 2
            assert module.weight.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.12)
        if isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx((2 / module.in_features) ** 0.5, rel=0.12)
            assert not module.bias.any()


def _manual_block(block, h):
    """One pre-activation block from its definition, in training mode."""

    def norm(x, layer):
        mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
        return (x - mean) / (var + 1e-5).sqrt() * layer.weight[:, None, None] + layer.bias[:, None, None]

    z = norm(h, block.norm1).relu()
    inner = F.conv2d(z, block.conv1.weight, stride=block.conv1.stride, padding=1)
    out = F.conv2d(norm(inner, block.norm2).relu(), block.conv2.weight, padding=1)
    return out + (h if block.shortcut is None else F.conv2d(z, block.shortcut.weight, stride=block.shortcut.stride))


def test_blocks_follow_their_equation():
    torch.manual_seed(0)
    model = preact_resnet("small", in_channels=1, width=4).double()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5)
    h = model.conv_in(_images().double())
    for block in model.blocks:
        wanted = _manual_block(block, h)
        assert torch.allclose(block(h), wanted, atol=1e-10)
        h = wanted


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("depth", ["small", 18])
def test_scale_invariance(depth, activation):
    torch.manual_seed(0)
    size, channels = (8, 1) if depth == "small" else (16, 3)
    model = preact_resnet(depth, in_channels=channels, width=4, scale_invariant=True, activation=activation).double()
    x, y = _images(16, channels, size).double(), torch.arange(16) % 10
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    fixed = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert fixed == {"head.weight", "head.bias"}
    assert all(p.ndim == 4 for p in trainable.values())
    logits = model(x)
    loss = F.cross_entropy(logits, y)
    flat = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(trainable.values()))])
    weights = torch.cat([p.detach().flatten() for p in trainable.values()])
    assert abs(flat @ weights) < 1e-8 * flat.norm() * weights.norm()
    # On the unit sphere, where the paper trains, and far away from it.
    for scale in (1 / weights.norm().item(), 50.0):
        with torch.no_grad():
            for parameter in trainable.values():
                parameter.mul_(scale)
        again = model(x)
        assert torch.allclose(again, logits, atol=1e-5)
        flat_again = torch.cat(
            [g.flatten() for g in torch.autograd.grad(F.cross_entropy(again, y), list(trainable.values()))]
        )
        assert torch.allclose(flat_again * scale, flat, atol=1e-4 * flat.norm())
        flat = flat_again


def test_the_plain_network_is_not_scale_invariant():
    torch.manual_seed(0)
    model = preact_resnet("small", in_channels=1, width=4)
    x = _images()
    before = model(x)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    assert not torch.allclose(model(x), before, atol=1e-2)


def test_a_normalisation_in_the_shortcut_only_when_scale_invariant():
    for flag in (False, True):
        model = preact_resnet("small", in_channels=1, scale_invariant=flag)
        assert isinstance(model.blocks[2].shortcut, nn.Sequential) is flag
        assert model.blocks[0].shortcut is None


@pytest.mark.parametrize("build", [preact_resnet, vgg16, vgg_small])
def test_unknown_activation(build):
    with pytest.raises(DecaylabError, match="activation"):
        build(activation="tanh")


def test_unknown_depth():
    with pytest.raises(DecaylabError, match="depth must be 18, 34 or 'small'"):
        preact_resnet(50)


def test_vgg_refuses_images_of_another_size():
    with pytest.raises(DecaylabError, match="32 x 32 pixels, not 8 x 8"):
        vgg16(width=1, in_channels=1)(_images())
    with pytest.raises(DecaylabError, match="8 x 8 pixels, not 32 x 32"):
        vgg_small(in_channels=3)(_images(1, 3, 32))


@pytest.mark.parametrize(
    "build",
    [
        lambda: preact_resnet("small", in_channels=1, width=4, blocks=1),
        lambda: preact_resnet("small", in_channels=1, width=4, blocks=1, scale_invariant=True, activation="gelu"),
        lambda: vgg_small(width=4, batch_norm=True),
    ],
)
def test_no_graph_breaks(build):
    torch._dynamo.reset()
    torch.manual_seed(0)
    model, x = build(), _images()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(x), model(x), atol=1e-5)


def test_a_vgg_without_normalisation_learns_digits_with_plain_sgd():
    torch.manual_seed(0)
    images = data.vision("digits", train_size=512)
    model = vgg_small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(6):
        for batch in torch.randperm(512).split(32):
            optimizer.zero_grad()
            F.cross_entropy(model(images.train_x[batch]), images.train_y[batch]).backward()
            optimizer.step()
    with torch.no_grad():
        assert F.cross_entropy(model(images.train_x), images.train_y) < 1.2
