"""A transformers Trainer, tuned in its own process: `python trainer.py --budget 3`, or driven by `decaylab tune`."""

import argparse
import json

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=3e-3)
parser.add_argument("--weight-decay", type=float, default=0.0)
parser.add_argument("--max-steps", type=int, default=3200)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", default="out-trainer")
parser.add_argument("--budget", type=float, help="tune from here: full runs that it may cost")
args = parser.parse_args()

task = torch.Generator().manual_seed(0)
rows = torch.randint(0, 16, (96, 1), generator=task)
steps = torch.randint(1, 4, (96, 15), generator=task)
tokens = torch.cat([rows, rows + steps.cumsum(1)], dim=1) % 16  # each next token is 1 to 3 further
data = [{"input_ids": row, "labels": row} for row in tokens]


def model():
    """Make a fresh model; the Trainer sets the seed before."""
    return GPT2LMHeadModel(GPT2Config(vocab_size=16, n_positions=16, n_embd=16, n_layer=1, n_head=2))


arguments = TrainingArguments(
    output_dir=args.out, max_steps=args.max_steps, learning_rate=args.lr, weight_decay=args.weight_decay,
    seed=args.seed, per_device_train_batch_size=8, lr_scheduler_type="linear", report_to="none",
    save_strategy="no", disable_tqdm=True, dataloader_pin_memory=torch.cuda.is_available(),
)  # fmt: skip
trainer = Trainer(model_init=model, args=arguments, train_dataset=data[:64], eval_dataset=data[64:])

if args.budget is not None:
    from decaylab.integrations import tune_trainer

    print("\n".join(tune_trainer(trainer, budget=args.budget).lines()))
else:
    trainer.train()
    print(json.dumps({"loss": trainer.evaluate()["eval_loss"]}))
