"""`Trainer.hyperparameter_search` and `tune_trainer`: complete short schedules, seeds, the Trainer as it was."""

import math

import pytest
import torch

transformers = pytest.importorskip("transformers")

from tests.support import quadratic  # noqa: E402

from decaylab.errors import DecaylabError  # noqa: E402
from decaylab.integrations import register_search_backend, tune_trainer  # noqa: E402
from decaylab.integrations.trainer_search import TrainerObjective, full_steps  # noqa: E402


def _model():
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=16, n_positions=8, n_embd=8, n_layer=1, n_head=2, resid_pdrop=0.0)
    )


def _trainer(folder, **settings):
    rows = [{"input_ids": (torch.arange(8) * k) % 16, "labels": (torch.arange(8) * k) % 16} for k in range(1, 17)]
    options = {"max_steps": 12, "learning_rate": 1e-3, "weight_decay": 0.1, "warmup_steps": 4, "report_to": "none"}
    options |= {"per_device_train_batch_size": 2, "use_cpu": True, "disable_tqdm": True, "logging_steps": 1}
    arguments = transformers.TrainingArguments(output_dir=str(folder), **{**options, **settings})
    return transformers.Trainer(model_init=_model, args=arguments, train_dataset=rows, eval_dataset=rows[:4])


def test_a_trial_is_a_whole_schedule_and_leaves_the_trainer_as_it_was(tmp_path):
    trainer = _trainer(tmp_path, save_steps=2, eval_strategy="steps", eval_steps=2)
    before = trainer.args.to_dict()
    objective = TrainerObjective(trainer, 12, None)
    first = objective(weight_decay=0.0, lr=1e-2, steps=6, seed=0)
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    # a warm-up of 4 out of 12 is one of 2 out of 6, and the line ends at step 6
    assert rates == pytest.approx([0.0, 5e-3, 1e-2, 7.5e-3, 5e-3, 2.5e-3])
    assert trainer.args.to_dict() == before and not list(tmp_path.glob("checkpoint-*"))
    assert objective(weight_decay=0.0, lr=1e-2, steps=6, seed=0) == first
    assert objective(weight_decay=0.0, lr=1e-2, steps=6, seed=1) != first
    assert objective(weight_decay=50.0, lr=1e-2, steps=6, seed=0) != first


def _formula(trainer, monkeypatch):
    """Replace training and evaluation by a formula of the arguments that they would read."""
    calls = []

    def evaluate():
        a = trainer.args
        calls.append(a.max_steps)
        return {"eval_loss": quadratic.loss(a.weight_decay, a.learning_rate, a.max_steps, a.seed)}

    monkeypatch.setattr(trainer, "train", lambda: None)
    monkeypatch.setattr(trainer, "evaluate", evaluate)
    return calls


def test_hyperparameter_search_finds_the_weight_decay(tmp_path, monkeypatch):
    register_search_backend()
    register_search_backend()
    trainer = _trainer(tmp_path, max_steps=32_000, lr_scheduler_type="constant")
    calls = _formula(trainer, monkeypatch)
    best = trainer.hyperparameter_search(backend="decaylab", direction="minimize", budget=3, say=lambda line: None)
    found = best.run_summary
    assert found.verdict == "found" and found.weight_decay.low < 3 / 32 < found.weight_decay.high
    assert best.hyperparameters == {"weight_decay": found.weight_decay.value, "learning_rate": 1e-3}
    assert math.isfinite(best.objective) and best.run_id in {t.run for t in found.trials}
    assert trainer.hp_search_backend is None and trainer.args.max_steps == 32_000
    # again: nothing is trained; another model is another training
    done = len(calls)
    again = tune_trainer(trainer, budget=3, say=lambda line: None)
    assert again.weight_decay == found.weight_decay and len(calls) == done
    trainer.model.config.resid_pdrop = 0.3
    tune_trainer(trainer, budget=3, say=lambda line: None)
    assert len(calls) > done


def test_steps_follow_from_epochs(tmp_path):
    trainer = _trainer(tmp_path, max_steps=-1, num_train_epochs=3, gradient_accumulation_steps=3)
    assert full_steps(trainer) == 9  # 8 batches make 3 updates
    trainer.train()
    assert trainer.state.global_step == 9


def test_trainers_that_cannot_be_tuned_are_one_line(tmp_path):
    trainer = _trainer(tmp_path)
    trainer.eval_dataset = None
    with pytest.raises(DecaylabError, match="needs eval_dataset="):
        tune_trainer(trainer)
    plain = transformers.Trainer(model=_model(), args=trainer.args, train_dataset=[], eval_dataset=[])
    with pytest.raises(DecaylabError, match="needs model_init="):
        tune_trainer(plain)
    with pytest.raises(DecaylabError, match="minimize or maximize"):
        tune_trainer(trainer, direction="down")
