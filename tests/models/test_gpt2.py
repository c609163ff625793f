"""The transformer: sizes, what it computes (against a plain loop), causality, its switches, compilation."""

import math

import pytest
import torch
from torch.nn import functional as F

from decaylab.errors import DecaylabError
from decaylab.models import GPT

SMALL = {"vocab_size": 61, "context": 16, "num_layers": 2, "num_heads": 2, "width": 24}
SWITCHES = [
    {},
    {"bias": True, "tied": False},
    {"branch_norm": True, "qk_norm": True, "activation": "relu"},
    {"activation": "gelu_tanh"},
]


def _tokens(batch=3, length=16, vocab=61, seed=0):
    return torch.randint(vocab, (batch, length), generator=torch.Generator().manual_seed(seed))


def _count(**settings):
    with torch.device("meta"):
        model = GPT(**{"num_layers": 12, "num_heads": 12, "width": 768, "context": 1024, **settings})
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"vocab_size": 50257, "bias": True}, 124_439_808),  # the released GPT-2 small
        ({"vocab_size": 50257}, 124_337_664),
        ({"vocab_size": 50304}, 124_373_760),
        ({"vocab_size": 50257, "tied": False}, 162_935_040),
        ({"vocab_size": 50304, "tied": False}, 163_007_232),
        ({"vocab_size": 50304, "context": 256}, 123_783_936),
    ],
)
def test_parameter_counts_of_the_papers_sizes(settings, count):
    assert _count(**settings) == count


def test_the_count_follows_from_the_shapes():
    vocab, context, layers, width = 50304, 1024, 12, 768
    by_hand = vocab * width + context * width + layers * (12 * width**2 + 2 * width) + width
    assert _count(vocab_size=vocab) == by_hand


def _slow_logits(model, tokens):
    """The same function written position by position in float64, from the parameters alone."""
    weights = {name: p.detach().double() for name, p in model.named_parameters()}
    heads = model.transformer["h"][0].attn.num_heads
    act = model.transformer["h"][0].mlp.activation

    def norm(x, name):
        centred = x - x.mean(-1, keepdim=True)
        x = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * weights[f"{name}.weight"]
        return x + weights.get(f"{name}.bias", 0.0)

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0.0)

    rows = []
    for sequence in tokens:
        length, width = len(sequence), weights["transformer.wpe.weight"].shape[1]
        size = width // heads
        h = weights["transformer.wte.weight"][sequence] + weights["transformer.wpe.weight"][:length]
        for i in range(model.num_layers):
            block = f"transformer.h.{i}"
            q, k, v = linear(norm(h, f"{block}.ln_1"), f"{block}.attn.c_attn").split(width, -1)
            out = torch.zeros_like(h)
            for head in range(heads):
                cut = slice(head * size, (head + 1) * size)
                qh, kh, vh = q[:, cut], k[:, cut], v[:, cut]
                if f"{block}.attn.ln_q.weight" in weights:
                    qh, kh = norm(qh, f"{block}.attn.ln_q"), norm(kh, f"{block}.attn.ln_k")
                for t in range(length):
                    scores = kh[: t + 1] @ qh[t] / math.sqrt(size)
                    out[t, cut] = scores.softmax(0) @ vh[: t + 1]
            branch = linear(out, f"{block}.attn.c_proj")
            h = h + (norm(branch, f"{block}.ln_3") if f"{block}.ln_3.weight" in weights else branch)
            branch = linear(act(linear(norm(h, f"{block}.ln_2"), f"{block}.mlp.c_fc")), f"{block}.mlp.c_proj")
            h = h + (norm(branch, f"{block}.ln_4") if f"{block}.ln_4.weight" in weights else branch)
        head = weights.get("lm_head.weight", weights["transformer.wte.weight"])
        rows.append(norm(h, "transformer.ln_f") @ head.T)
    return torch.stack(rows)


@pytest.mark.parametrize("attention", ["flash", "math"])
@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_agrees_with_a_plain_loop(switches, attention):
    torch.manual_seed(0)
    model = GPT(**SMALL, **switches, attention=attention, init_std=0.3).double()
    tokens = _tokens(length=11)
    assert torch.allclose(model(tokens), _slow_logits(model, tokens), atol=1e-9)


@pytest.mark.parametrize("attention", ["flash", "math"])
def test_no_tokens_have_no_logits(attention):
    assert GPT(**SMALL, attention=attention)(torch.zeros(2, 0, dtype=torch.long)).shape == (2, 0, 61)


@pytest.mark.parametrize("length", [128, 129, 300, 1024])
def test_rows_in_blocks_give_the_same_losses_and_gradients(length):
    torch.manual_seed(0)
    model = GPT(17, length, 1, 2, 8).double()
    tokens_BT = torch.randint(17, (2, length))
    found = []
    for model.attention in ("flash", "math"):
        loss = model.loss(tokens_BT, tokens_BT)
        found.append((loss.detach(), torch.autograd.grad(loss, list(model.parameters()))))
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_both_attention_paths_give_the_same_gradients(switches):
    torch.manual_seed(0)
    model = GPT(**SMALL, **switches, init_std=0.2)
    tokens, targets = _tokens(), _tokens(seed=1)
    gradients = []
    for model.attention in ("flash", "math"):
        gradients.append(torch.autograd.grad(model.loss(tokens, targets), list(model.parameters())))
    for fused, written in zip(*gradients, strict=True):
        assert torch.allclose(fused, written, atol=1e-6)


def test_a_position_sees_no_later_token():
    torch.manual_seed(0)
    tokens = _tokens(batch=1)
    changed = tokens.clone()
    changed[0, 9:] = (changed[0, 9:] + 1) % 61
    for attention in ("flash", "math"):
        model = GPT(**SMALL, attention=attention)
        before, after = model(tokens), model(changed)
        assert torch.allclose(before[:, :9], after[:, :9], atol=1e-6)
        assert not torch.allclose(before[:, 9:], after[:, 9:], atol=1e-3)


def test_initial_standard_deviations():
    torch.manual_seed(0)
    model = GPT(512, 64, 8, 4, 256, init_std=0.05)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            wanted = 0.05 / 4 if name.endswith("c_proj.weight") else 0.05  # sqrt(2 * 8 layers) = 4
            assert parameter.std().item() == pytest.approx(wanted, rel=0.03)
        else:
            assert torch.equal(parameter, torch.ones_like(parameter))


def test_names_and_tying():
    tied, untied = GPT(**SMALL), GPT(**SMALL, tied=False, branch_norm=True, qk_norm=True, bias=True)
    assert tied.lm_head.weight is tied.transformer["wte"].weight
    assert "lm_head.weight" in dict(untied.named_parameters())
    names = {name for name, _ in untied.named_parameters()}
    for part in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj", "ln_1", "ln_2"):
        assert {f"transformer.h.1.{part}.weight", f"transformer.h.1.{part}.bias"} <= names
    assert {"transformer.wte.weight", "transformer.wpe.weight", "transformer.ln_f.weight"} <= names


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_hidden_matrices_are_scale_free_with_branch_norm(scale):
    torch.manual_seed(0)
    model = GPT(**SMALL, branch_norm=True, qk_norm=True, activation="relu", norm_eps=1e-20).double()
    tokens, targets = _tokens(), _tokens(seed=1)
    before = model(tokens)
    hidden = {n: p for n, p in model.named_parameters() if ".h." in n and p.ndim == 2 and "c_attn" not in n}
    for name, gradient in zip(
        hidden, torch.autograd.grad(model.loss(tokens, targets), list(hidden.values())), strict=True
    ):
        assert abs((gradient * hidden[name]).sum()) < 1e-9 * gradient.norm() * hidden[name].norm(), name
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".h." in name and parameter.ndim == 2:
                parameter.mul_(scale)
    assert torch.allclose(model(tokens), before, atol=1e-9)


def test_second_derivatives_on_the_materialised_path():
    torch.manual_seed(0)
    model = GPT(11, 4, 1, 1, 4, attention="math").double()
    tokens, targets = _tokens(2, 4, 11), _tokens(2, 4, 11, seed=1)
    weight = model.transformer["h"][0].attn.c_attn.weight

    def loss(w):
        return torch.func.functional_call(model, {"transformer.h.0.attn.c_attn.weight": w}, (tokens,))

    def scalar(w):
        return F.cross_entropy(loss(w).flatten(0, 1), targets.flatten())

    v = torch.randn_like(weight)
    (gradient,) = torch.autograd.grad(scalar(weight), weight, create_graph=True)
    (product,) = torch.autograd.grad((gradient * v).sum(), weight)
    step = 1e-5
    up, down = (torch.func.grad(scalar)(weight.detach() + sign * step * v) for sign in (1, -1))
    assert torch.allclose(product, (up - down) / (2 * step), atol=1e-7)


def test_loss_is_float32_and_skips_ignored_targets():
    torch.manual_seed(0)
    model = GPT(**SMALL, init_std=0.3)
    tokens, targets = _tokens(), _tokens(seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(tokens, targets)
        logits = model(tokens)
    assert logits.dtype is torch.bfloat16 and loss.dtype is torch.float32
    wanted = -logits.double().log_softmax(-1).gather(-1, targets[..., None]).mean()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    targets[:, 3:] = -1
    assert model.loss(tokens, targets).item() == pytest.approx(
        F.cross_entropy(model(tokens)[:, :3].reshape(-1, 61), targets[:, :3].reshape(-1)).item()
    )


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    tokens = _tokens()
    for attention in ("flash", "math"):
        model = GPT(**SMALL, dropout=0.5, attention=attention)
        assert not torch.equal(model(tokens), model(tokens))
        model.eval()
        assert torch.equal(model(tokens), model(tokens))


def test_generate_greedy_equals_step_by_step_and_seeds_repeat():
    torch.manual_seed(0)
    model = GPT(**SMALL, init_std=0.3, dropout=0.1)
    prompt = _tokens(2, 3)
    greedy = model.generate(prompt, 20, temperature=0)
    model.eval()
    sequence = prompt
    for _ in range(20):  # beyond the context: only the last 16 tokens are seen
        sequence = torch.cat([sequence, model(sequence[:, -16:])[:, -1].argmax(-1, keepdim=True)], 1)
    assert torch.equal(greedy, sequence)
    assert torch.equal(model.generate(prompt, 8, top_k=1), greedy[:, :11])
    drawn = [model.generate(prompt, 8, generator=torch.Generator().manual_seed(4)) for _ in range(2)]
    assert torch.equal(*drawn)


def test_generate_keeps_the_mode():
    model = GPT(**SMALL)
    assert model.generate(_tokens(1, 2), 1).shape == (1, 3)
    assert model.training


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 25}, "not a multiple"),
        ({"dropout": 1.0}, "dropout"),
        ({"activation": "swish"}, "activation"),
        ({"num_layers": 0}, "at least 1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(DecaylabError, match=message):
        GPT(**(SMALL | settings))


def test_a_long_sequence_and_an_unknown_attention_are_refused():
    model = GPT(**SMALL)
    with pytest.raises(DecaylabError, match="17 tokens do not fit into a context of 16"):
        model(_tokens(length=17))
    model.attention = "sparse"
    with pytest.raises(DecaylabError, match="attention must be"):
        model(_tokens())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_no_graph_breaks(precision):
    torch._dynamo.reset()
    model = GPT(**SMALL, qk_norm=True, branch_norm=True)

    def loss(tokens, targets):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            return model.loss(tokens, targets)

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    tokens, targets = _tokens(), _tokens(seed=1)
    assert compiled(tokens, targets).item() == pytest.approx(loss(tokens, targets).item(), rel=1e-2)
    compiled(tokens, targets).backward()
