"""What names and shapes say, word by word."""

import pytest
import torch

from decaylab.params.attribute_names import is_vector, named_role, words


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("layer_scale_1", ("layer", "scale")),
        ("A_log", ("a", "log")),
        ("gateUpProj", ("gate", "up", "proj")),
        ("LayerNorm2d", ("layer", "norm", "d")),
        ("RMSNorm", ("rms", "norm")),
        ("0", ()),
    ],
)
def test_words(name, expected):
    assert words(name) == expected


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        # the last known word decides, whole words only
        ("mask_token", (1, 1, 8), "embedding"),
        ("token_mask", (8, 8), "scalar"),
        ("gate_up_proj", (2, 8, 4), "matrix"),
        ("gate_up_proj_bias", (2, 8), "bias"),
        ("scale_bias", (8,), "bias"),
        ("bias_scale", (8,), "scalar"),
        ("unbiased", (8,), None),
        ("headroom", (8, 8), None),
        ("biasing", (8,), None),
        ("coefficients", (4, 4), None),
        ("spline_scaler", (8, 4), "scalar"),
        # a factor of rank 1 is a matrix, AdaLoRA's diagonal is none
        ("lora_A", (1, 8), "matrix"),
        ("lora_B", (8, 1), "matrix"),
        ("lora_E", (4, 1), "scalar"),
        # letters
        ("qkvo_w", (16, 8), "matrix"),
        ("W", (4, 8), "matrix"),
        ("W_pos", (4, 8), "matrix"),
        ("b_enc", (8,), "bias"),
        ("w1", (4, 8), "matrix"),
        ("wqkv", (4, 8), "matrix"),
        ("rel_pos_w", (7, 8), "embedding"),
        ("lambda_q1", (8,), "scalar"),
        ("weight_g", (8, 1), "scalar"),
        ("weight_mu", (8, 4), "matrix"),
        ("weight_sigma", (8, 4), "scalar"),
        # a vector is never a matrix, and a gate's tensor may be anything
        ("weight", (8,), "scalar"),
        ("weight", (1, 8, 1, 1), "scalar"),
        ("weight", (8, 4), "matrix"),
        ("gate", (8,), "scalar"),
        ("gate", (8, 8), None),
        ("mix", (4, 4), None),
        ("whatever", (8,), None),
        # state-space layers
        ("A_log", (32, 4), "scalar"),
        ("D", (32,), "scalar"),
        ("dt_bias", (32,), "bias"),
        ("time_decay", (32,), "scalar"),
        ("log_dt", (32,), "scalar"),
        # learned step sizes and temperatures
        *((name, (), "scalar") for name in ("temperature", "tau", "sigma", "step_size", "log_std", "logit_scale")),
        *((name, (8,), "scalar") for name in ("thresholds", "step_sizes", "magnitude", "slope", "log_var", "alpha")),
    ],
)
def test_named_role(name, shape, expected):
    found = named_role(name, torch.empty(shape))
    assert (found and found[0]) == expected


def test_vectors():
    assert [is_vector(torch.empty(shape)) for shape in ((), (3,), (1, 3, 1), (2, 3), (0, 4))] == [True] * 3 + [
        False,
        True,
    ]
