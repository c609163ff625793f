import json

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


def _train(folder, callbacks, steps=8, weight_decay=0.0, resume=None, **options):
    arguments = transformers.TrainingArguments(
        str(folder), max_steps=steps, per_device_train_batch_size=4, learning_rate=0.01, weight_decay=weight_decay,
        report_to=[], disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False, logging_strategy="no",
        lr_scheduler_type="constant", seed=0, **{"save_strategy": "no", **options},
    )  # fmt: skip
    model = _model()
    trainer = transformers.Trainer(model, arguments, train_dataset=_Tokens(), callbacks=callbacks)
    trainer.train(resume_from_checkpoint=resume)
    return model


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
