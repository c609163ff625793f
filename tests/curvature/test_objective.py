"""What is differentiated: the private copy, the points and the loss; and that the user's model sees nothing of it."""

import pytest
import torch
from tests.support.exact_curvature import conv_net, mlp
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from decaylab.curvature.density import spectral_density
from decaylab.curvature.eigenvalues import top_eigenvalues
from decaylab.curvature.hessian import hessian_trace
from decaylab.curvature.jacobian import jacobian_frobenius
from decaylab.curvature.noise_covariance import covariance_similarity
from decaylab.curvature.prepare import objective
from decaylab.errors import DecaylabError


def _loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


MEASURES = {
    "exact": lambda net, data: hessian_trace(net, _loss, data, 0),
    "hutchinson": lambda net, data: hessian_trace(net, _loss, data, 0.5, method="hutchinson", max_matvecs=20),
    "jacobian": lambda net, data: jacobian_frobenius(net, data, method="projections", max_projections=20),
    "lanczos": lambda net, data: top_eigenvalues(net, _loss, data),
    "density": lambda net, data: spectral_density(net, _loss, data, num_matvecs=3, num_probes=2),
    "covariance": lambda net, data: covariance_similarity(net, _loss, data, num_vectors=2),
}


@pytest.mark.parametrize("measure", MEASURES)
def test_probes_leave_no_trace(measure):
    net, x, y = conv_net()
    net.train()
    net.head.eval()
    net.conv1.weight.requires_grad_(False)
    net.conv2.weight.grad = torch.ones_like(net.conv2.weight)
    net.register_forward_hook(lambda *args: None)
    before = {name: t.clone() for name, t in net.state_dict().items()}
    hooks = [len(m._forward_hooks) for m in net.modules()]
    random = torch.get_rng_state()
    MEASURES[measure](net, DataLoader(TensorDataset(x, y), batch_size=3, shuffle=True))
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(before[name], t) for name, t in net.state_dict().items())
    assert [m.training for m in (net, net.norm1, net.head)] == [True, True, False]
    assert [p.requires_grad for p in (net.conv1.weight, net.conv2.weight)] == [False, True]
    assert torch.equal(net.conv2.weight.grad, torch.ones_like(net.conv2.weight))
    assert net.norm1.weight.grad is None
    assert hooks == [len(m._forward_hooks) for m in net.modules()]
    assert "forward" not in vars(net)


def test_the_copy_shares_weights_and_is_in_eval_mode():
    net, x, y = conv_net()
    net.train()
    made = objective(net, _loss, [(x, y)])
    assert not any(m.training for m in made.model.modules())
    assert made.parameters[0].data_ptr() == net.conv1.weight.data_ptr()
    assert made.names == tuple(name for name, _ in net.named_parameters())


def test_bfloat16_is_measured_in_float32():
    net, x, y = conv_net()
    low, low_x = net.bfloat16(), x.bfloat16()
    found = hessian_trace(low, _loss, [(low_x, y)], 0)
    assert next(low.parameters()).dtype == torch.bfloat16
    again = hessian_trace(low.float(), _loss, [(low_x.float(), y)], 0)
    assert found.value == pytest.approx(again.value, rel=1e-6)


def test_wrappers_come_off():
    net, x, y = conv_net()
    plain = hessian_trace(net, _loss, [(x, y)], 0)
    compiled = nn.Module()
    compiled._orig_mod = net  # what torch.compile returns, without loading the compiler
    for wrapped in (nn.DataParallel(net, device_ids=[]), compiled):
        found = hessian_trace(wrapped, _loss, [(x, y)], 0)
        assert found.per_tensor == plain.per_tensor
        assert found.per_role == plain.per_role


class _InPlace(nn.Module):
    def __init__(self, first, last):
        super().__init__()
        self.first, self.last = first, last

    def forward(self, x):
        return self.last(F.relu_(self.first(x)))


def test_activations_changed_in_place():
    torch.manual_seed(0)
    x, y = torch.randn(6, 4), torch.randint(3, (6,))
    first, last = nn.Linear(4, 5), nn.Linear(5, 3)
    truth = hessian_trace(nn.Sequential(first, nn.ReLU(), last), _loss, [(x, y)], 0)
    module = nn.Sequential(first, nn.ReLU(inplace=True), last)
    for net in (module, _InPlace(first, last)):
        found = hessian_trace(net, _loss, [(x, y)], 0)
        assert found.method == "exact rows"
        assert found.value == pytest.approx(truth.value, rel=1e-5)
    assert module[1].inplace


def test_criterion_function_and_mapping_agree():
    net, x, y = mlp()
    ways = (
        (nn.CrossEntropyLoss(), (x, y)),
        (F.cross_entropy, [x, y]),
        (_loss, (x, y)),
        (lambda model, batch: F.cross_entropy(model(batch["x"]), batch["y"]), {"x": x, "y": y}),
    )
    found = {hessian_trace(net, loss, [batch], method="hutchinson", max_matvecs=3).value for loss, batch in ways}
    assert len(found) == 1


MISTAKES = {
    "no points": (lambda net, x, y: (net, _loss, []), "no points"),
    "lengths": (lambda net, x, y: (net, _loss, [(x, y[:-1])]), "different lengths"),
    "no tensors": (lambda net, x, y: (net, _loss, [(x, 3)]), "made of tensors"),
    "sum": (lambda net, x, y: (net, nn.CrossEntropyLoss(reduction="sum"), [(x, y)]), "average over points"),
    "not scalar": (lambda net, x, y: (net, nn.CrossEntropyLoss(reduction="none"), [(x, y)]), "scalar"),
    "batch statistics": (
        lambda net, x, y: (nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False), net), _loss, [(x, y)]),
        "BatchNorm without running statistics",
    ),
    "frozen": (lambda net, x, y: (net.requires_grad_(False), _loss, [(x, y)]), "no trainable parameters"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_explained(mistake):
    build, message = MISTAKES[mistake]
    net, loss, batches = build(*mlp())
    with pytest.raises(DecaylabError, match=message):
        objective(net, loss, batches)


@pytest.mark.parametrize("measure", MEASURES)
def test_no_more_points_at_once_than_a_chunk(measure):
    sizes = []

    class Counting(nn.Linear):
        def forward(self, x):
            sizes.append(len(x))
            return super().forward(x)

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh() if measure == "hutchinson" else nn.ReLU(), Counting(5, 3))
    data = [(torch.randn(60, 4), torch.randint(3, (60,)))]
    with_chunks = {
        "exact": lambda: hessian_trace(net, _loss, data, 0, chunk_size=7),
        "hutchinson": lambda: hessian_trace(net, _loss, data, 0.2, method="hutchinson", max_matvecs=3, chunk_size=7),
        "jacobian": lambda: jacobian_frobenius(net, data, method="projections", chunk_size=7),
        "lanczos": lambda: top_eigenvalues(net, _loss, data, max_matvecs=3, chunk_size=7),
        "density": lambda: spectral_density(net, _loss, data, num_matvecs=3, num_probes=1, chunk_size=7),
        "covariance": lambda: covariance_similarity(net, _loss, data, num_vectors=2, chunk_size=7),
    }
    with_chunks[measure]()
    assert max(sizes) == 7


def test_a_network_that_has_diverged_gives_nan():
    net, x, y = mlp(nn.ReLU)
    with torch.no_grad():
        net[0].weight.fill_(float("nan"))
    for value in (
        hessian_trace(net, _loss, [(x, y)], 0).value,
        hessian_trace(net, _loss, [(x, y)], 0.1, method="hutchinson").value,
        jacobian_frobenius(net, [x], 0.1).value,
        *top_eigenvalues(net, _loss, [(x, y)], 2).values,
        covariance_similarity(net, _loss, [(x, y)], num_vectors=2).hessian.value,
    ):
        assert value != value


def test_chunk_size_has_to_be_positive():
    net, x, y = mlp()
    with pytest.raises(DecaylabError, match="chunk_size"):
        objective(net, _loss, [(x, y)], chunk_size=0)
