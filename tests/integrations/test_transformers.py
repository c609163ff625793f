import json
import warnings

import pytest
import torch

from decaylab import decay
from decaylab.errors import DecaylabError

transformers = pytest.importorskip("transformers", reason="needs the transformers extra")


def _model():
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=17, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    return transformers.GPT2LMHeadModel(config)


class _Tokens(torch.utils.data.Dataset):
    def __init__(self):
        self.tokens = torch.randint(0, 17, (32, 8), generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, i):
        return {"input_ids": self.tokens[i], "labels": self.tokens[i]}


def _trainer(folder, callbacks, steps=8, weight_decay=0.0, **options):
    arguments = transformers.TrainingArguments(
        str(folder), max_steps=steps, per_device_train_batch_size=4, learning_rate=0.01, weight_decay=weight_decay,
        report_to=[], disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False, logging_strategy="no",
        lr_scheduler_type="constant", seed=0, **{"save_strategy": "no", **options},
    )  # fmt: skip
    model = _model()
    return transformers.Trainer(model, arguments, train_dataset=_Tokens(), callbacks=callbacks)


def _train(folder, callbacks, steps=8, weight_decay=0.0, resume=None, **options):
    trainer = _trainer(folder, callbacks, steps, weight_decay, **options)
    trainer.train(resume_from_checkpoint=resume)
    return trainer.model


def test_watching_a_trainer_leaves_its_weights_bit_equal(tmp_path):
    from decaylab.integrations import TransformersCallback

    plain = _train(tmp_path, [], weight_decay=0.1, gradient_accumulation_steps=2)
    watcher = TransformersCallback(every=4)
    watched = _train(tmp_path, [watcher], weight_decay=0.1, gradient_accumulation_steps=2)
    for a, b in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(a, b)
    assert [record["step"] for record in watcher.log.records] == [0, 4]
    assert watcher.log.records[1]["timescale/passed/matrix"] == pytest.approx(5 * 0.01 * 0.1)
    assert "Not yet in equilibrium" in watcher.log.summary()


def test_a_rule_equals_the_trainers_own_decay(tmp_path):
    from decaylab.integrations import TransformersCallback

    expected = _train(tmp_path, [], weight_decay=0.1)
    watcher = TransformersCallback(every=4, rule=decay.Decoupled(0.1))
    found = _train(tmp_path, [watcher])
    for (name, a), b in zip(expected.named_parameters(), found.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7, msg=name)
    assert not decay.handles(watcher.handle._optimizer)


def test_a_rule_refuses_a_trainer_that_decays_already(tmp_path):
    from decaylab.integrations import TransformersCallback

    with pytest.raises(DecaylabError, match="would decay twice"):
        _train(tmp_path, [TransformersCallback(rule=decay.Decoupled(0.1))], weight_decay=0.1)


def test_a_resumed_training_goes_on_counting(tmp_path):
    from decaylab.integrations import TransformersCallback

    def rule():
        return decay.WeightNormControl(0.1, ratio=0.5)  # keeps initial norms: its state has to survive

    whole = TransformersCallback(every=2, rule=rule())
    expected = _train(tmp_path / "whole", [whole], steps=8)
    _train(
        tmp_path / "parts", [TransformersCallback(every=2, rule=rule())], steps=4, save_strategy="steps", save_steps=4
    )
    checkpoint = tmp_path / "parts" / "checkpoint-4"
    assert json.loads((checkpoint / "decaylab.json").read_text())["step"] == 4
    resumed = TransformersCallback(every=2, rule=rule())
    found = _train(tmp_path / "parts", [resumed], steps=8, resume=str(checkpoint))
    assert resumed.log.step == 8
    for a, b in zip(whole.log.records, resumed.log.records, strict=True):
        assert a == pytest.approx(b, rel=1e-6, nan_ok=True)
    for a, b in zip(expected.parameters(), found.parameters(), strict=True):
        assert torch.equal(a, b)


def test_records_go_to_sinks(tmp_path):
    from decaylab.integrations import TransformersCallback

    class Memory(list):
        write = list.append

        def close(self):
            self.append("closed")

    memory = Memory()
    _train(tmp_path, [TransformersCallback(every=3, sinks=[memory])], weight_decay=0.1)
    assert [record["step"] for record in memory[:-1]] == [0, 3, 6] and memory[-1] == "closed"


def _scheduled():
    """A rule whose state is a count of steps and a norm of every tensor."""
    schedule = decay.DecaySchedule(kind="cosine_to_zero")
    return decay.WeightNormControl(0.3, ratio=0.5, schedule=schedule, total_steps=8)


class _Interrupt(transformers.TrainerCallback):
    """Ctrl-C before a step, once."""

    def __init__(self, at):
        self.at, self.done = at, False

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.at and not self.done:
            self.done = True
            raise KeyboardInterrupt


def _same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("moved", [False, True], ids=["another folder", "a moved checkpoint"])
def test_a_training_resumes_from_a_checkpoint_of_another_output_folder(tmp_path, moved):
    from decaylab.integrations import TransformersCallback

    whole = TransformersCallback(every=2, rule=_scheduled())
    expected = _train(tmp_path / "whole", [whole])
    _train(tmp_path / "A", [TransformersCallback(every=2, rule=_scheduled())], 4, save_strategy="steps", save_steps=4)
    checkpoint = tmp_path / "A" / "checkpoint-4"
    if moved:
        checkpoint = checkpoint.rename(tmp_path / "elsewhere")
    resumed = TransformersCallback(every=2, rule=_scheduled())
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*starts (anew|from).*")
        found = _train(tmp_path / "B", [resumed], resume=str(checkpoint))
    assert _same(found, expected) and resumed.handle.steps == 8
    assert [r["step"] for r in resumed.log.records] == [r["step"] for r in whole.log.records]
    for a, b in zip(whole.log.records, resumed.log.records, strict=True):
        assert a == pytest.approx(b, rel=1e-6, nan_ok=True)


def test_a_checkpoint_without_the_rule_is_said(tmp_path):
    from decaylab.integrations import TransformersCallback

    _train(tmp_path, [], 4, save_strategy="steps", save_steps=4)
    watcher = TransformersCallback(rule=_scheduled())
    with pytest.warns(UserWarning, match="checkpoint at step 4 holds nothing of WeightNormControl: it starts from"):
        _train(tmp_path, [watcher], resume=str(tmp_path / "checkpoint-4"))
    assert watcher.handle.steps == 4


@pytest.mark.parametrize(
    "damage", [b"{", b"\xff\xfe\x00", b"[]", b'{"step": 4, "records": 3, "passed": 1}', b"[" * 5000]
)
def test_a_damaged_log_is_one_line_and_the_training_goes_on(tmp_path, damage):
    from decaylab.integrations import TransformersCallback

    _train(tmp_path, [TransformersCallback(every=2)], 4, 0.1, save_strategy="steps", save_steps=4)
    checkpoint = tmp_path / "checkpoint-4"
    (checkpoint / "decaylab.json").write_bytes(damage)
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    del state["stateful_callbacks"]["decaylab"]  # as a Trainer without such a place writes it
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    watcher = TransformersCallback(every=2)
    with pytest.warns(UserWarning, match=r"decaylab.json is damaged, so its log starts anew"):
        _train(tmp_path, [watcher], 6, 0.1, resume=str(checkpoint))
    assert watcher.log.step == 2 and [r["step"] for r in watcher.log.records] == [0]


@pytest.mark.parametrize("rule", [None, decay.Decoupled(0.1)], ids=["watching", "rule"])
def test_an_interrupted_training_can_be_started_again(tmp_path, rule):
    from decaylab.integrations import TransformersCallback

    watcher = TransformersCallback(every=1, rule=rule)
    trainer = _trainer(tmp_path, [_Interrupt(3), watcher], steps=5)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    first = watcher.log
    assert len(first.records) == 3
    trainer.train()
    assert len(first.records) == 3 and [r["step"] for r in watcher.log.records] == [0, 1, 2, 3, 4]
    inner = trainer.optimizer.optimizer
    assert not inner._optimizer_step_pre_hooks and not inner._optimizer_step_post_hooks and "step" not in vars(inner)
    assert rule is None or watcher.handle.steps == 5


def test_an_interrupted_training_resumes_in_the_same_trainer(tmp_path):
    from decaylab.integrations import TransformersCallback

    expected = _train(tmp_path / "whole", [TransformersCallback(rule=_scheduled())])
    watcher = TransformersCallback(every=2, rule=_scheduled())
    trainer = _trainer(tmp_path, [_Interrupt(6), watcher], save_strategy="steps", save_steps=4)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*starts (anew|from).*")
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert watcher.handle.steps == 8 and watcher.log.step == 8 and _same(trainer.model, expected)


def test_what_an_interrupted_training_left_does_not_act_in_a_loop_of_ones_own(tmp_path):
    from decaylab.integrations import TransformersCallback

    watcher = TransformersCallback(every=1, rule=decay.Constant(0.5))
    trainer = _trainer(tmp_path, [_Interrupt(2), watcher])
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    records, inner = len(watcher.log.records), trainer.optimizer.optimizer
    weight = trainer.model.transformer.wte.weight
    for p in trainer.model.parameters():
        p.grad = torch.zeros_like(p)
    inner.state.clear()
    start = weight.detach().clone()
    with pytest.warns(UserWarning, match="ended with an exception and the optimizer is stepped by somebody else"):
        inner.step()
    inner.step()
    assert torch.equal(weight, start) and len(watcher.log.records) == records and not decay.handles(inner)


def test_an_exception_in_the_optimizers_step_takes_everything_off(tmp_path, monkeypatch):
    from decaylab.integrations import TransformersCallback

    watcher = TransformersCallback(every=1, rule=decay.Decoupled(0.1))
    trainer = _trainer(tmp_path, [watcher])

    class Failing(torch.optim.SGD):
        @torch.no_grad()
        def step(self, closure=None):
            raise MemoryError

    trainer.optimizer = Failing(trainer.model.parameters(), lr=0.1)
    with pytest.raises(MemoryError):
        trainer.train()
    inner = trainer.optimizer.optimizer
    assert not decay.handles(inner) and not inner._optimizer_step_pre_hooks


def test_a_state_saved_after_the_training_has_the_rules(tmp_path):
    from decaylab.integrations import TransformersCallback

    watcher = TransformersCallback(rule=_scheduled())
    trainer = _trainer(tmp_path, [watcher], steps=3)
    trainer.train()
    state = trainer.optimizer.state_dict()
    assert state["param_groups"][0]["decaylab/weightnormcontrol/steps"] == 3
