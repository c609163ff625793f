"""The laws: the blog's arithmetic digit by digit, logarithms as a second way to compute, and ranges."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decaylab.advice import deepseek, power_lines, step_law
from decaylab.advice.recommendation import outside

TOKENS = 3_260_252_160


def test_the_blogs_arithmetic():
    sequences = TOKENS // 1024
    assert sequences == 3_183_840 and TOKENS % 1024 == 0
    tau = power_lines.optimal_timescale(20)
    assert tau == pytest.approx(0.2236, abs=5e-5)
    at_base = power_lines.optimal_weight_decay(tau, lr=4e-4, batch=96, data=sequences)
    assert at_base == pytest.approx(0.3372, abs=5e-5)
    assert power_lines.optimal_weight_decay(tau, lr=1.4e-3, batch=96, data=sequences) == pytest.approx(0.0963, abs=1e-4)
    in_tokens = power_lines.optimal_weight_decay(tau, lr=4e-4, batch=96 * 1024, data=TOKENS)
    assert in_tokens == pytest.approx(at_base, rel=1e-12)
    assert power_lines.optimal_batch_size(TOKENS) == pytest.approx(134.7, abs=0.05)
    assert power_lines.optimal_batch_size(sequences) == pytest.approx(9.47, abs=0.005)


def test_the_blogs_deepseek_numbers_come_from_a_compute_of_five_e18():
    """373 sequences and 0.0014 belong to the same C, 2.5 times M D: what the blog counted is not in the post."""
    assert round(deepseek.optimal_batch_size_tokens(5.0e18) / 1024) == 373
    assert deepseek.optimal_learning_rate(5.0e18) == pytest.approx(0.0014, abs=5e-5)
    assert 5.0e18 / (deepseek.flops_per_token(12, 768, 1024) * TOKENS) == pytest.approx(2.46, abs=0.01)


def test_deepseeks_compute_by_hand():
    per_layer = 6 * 12 * 768**2 + 12 * 768 * 1024  # 6 FLOPs a weight, 12 d^2 weights; attention's two products
    assert deepseek.flops_per_token(12, 768, 1024) == 12 * per_layer == 622_854_144


@given(st.floats(1e15, 1e24))
def test_power_laws_by_logarithms(number):
    log = math.log(number)
    assert deepseek.optimal_learning_rate(number) == pytest.approx(math.exp(math.log(0.3118) - 0.125 * log), rel=1e-9)
    assert deepseek.optimal_batch_size_tokens(number) == pytest.approx(
        math.exp(math.log(0.292) + 0.3271 * log), rel=1e-9
    )
    assert step_law.optimal_batch_size_tokens(number) == pytest.approx(math.exp(math.log(0.58) + 0.571 * log), rel=1e-9)
    expected = math.exp(math.log(1.79) - 0.713 * math.log(85e6) + 0.307 * log)
    assert step_law.optimal_learning_rate(85e6, number) == pytest.approx(expected, rel=1e-9)
    assert power_lines.optimal_batch_size(number) == pytest.approx(math.exp(math.log(0.0306) + 0.383 * log), rel=1e-9)


def test_power_lines_counts_its_own_sequences():
    weight_decay, batch = power_lines.recommend(
        params=163_000_000, tokens=TOKENS, seq_len=1024, batch_size=96, lr=4e-4, mean_lr_ratio=0.5
    )
    assert weight_decay.warnings == ()
    assert batch.value == pytest.approx(134.7 * 2, rel=1e-3)
    assert any("9.47" in note for note in batch.notes)


def test_another_schedule_is_a_warning_with_the_same_total_decay():
    weight_decay, _ = power_lines.recommend(
        params=163_000_000, tokens=TOKENS, seq_len=1024, batch_size=96, lr=4e-4, mean_lr_ratio=1.0
    )
    assert "0.1686" in weight_decay.warnings[0]
    assert power_lines.same_total_decay(weight_decay.value, 1.0) == pytest.approx(weight_decay.value / 2)


def test_outside_a_range():
    assert outside("N =", 5, 1, 10) == ()
    assert outside("N =", 5e6, 111e6, 3.3e9, "parameters") == (
        "N = 5M parameters is below the fitted range (111M to 3.3B).",
    )
    assert "above the fitted range (up to 1.1B)" in outside("N =", 5e9, 0, 1.1e9)[0]


def test_meaning_of_compute_is_said():
    shaped = deepseek.recommend(params=124_000_000, tokens=TOKENS, seq_len=1024, layers=12, width=768)
    assert "72 L d²" in shaped[0].worked and shaped[0].notes == ()
    plain = deepseek.recommend(params=124_000_000, tokens=TOKENS, seq_len=1024, layers=None, width=None)
    assert "6 N D" in plain[0].worked and "--layers" in plain[0].notes[0]
    assert plain[1].value == pytest.approx(0.2920 * (6 * 124e6 * TOKENS) ** 0.3271 / 1024)
    far = deepseek.recommend(params=10**11, tokens=10**13, seq_len=4096, layers=None, width=None)
    assert "above the fitted range" in far[0].warnings[0]


def test_step_law_uses_parameters_without_embeddings_where_known():
    shaped = step_law.recommend(params=124_000_000, tokens=TOKENS, seq_len=1024, layers=12, width=768)
    assert shaped[0].value == pytest.approx(1.79 * (12 * 12 * 768**2) ** -0.713 * TOKENS**0.307)
    plain = step_law.recommend(params=124_000_000, tokens=10**12, seq_len=1024, layers=None, width=None)
    assert plain[0].value == pytest.approx(1.79 * 124e6**-0.713 * 1e12**0.307)
    assert "above the fitted range" in plain[1].warnings[0]
