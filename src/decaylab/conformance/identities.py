"""Every identity by name: the table that the check, the command, the docs and the tests read."""

from __future__ import annotations

from collections.abc import Callable

from decaylab.conformance import contract_identities as contract
from decaylab.conformance import decay_identities as decay
from decaylab.conformance.context import Context
from decaylab.conformance.finding import Finding
from decaylab.conformance.golden import golden

IDENTITIES: dict[str, Callable[[Context], Finding]] = {
    "meaning": decay.meaning,
    "schedule": decay.schedule,
    "sign": decay.sign,
    "zero-gradient": decay.zero_gradient,
    "zero-decay": decay.zero_decay,
    "memory": decay.memory,
    "group-decay": decay.group_decay,
    "group-lr": decay.group_lr,
    "golden": golden,
    "no-gradient": contract.no_gradient,
    "gradient-kept": contract.gradient_kept,
    "second-moment": contract.second_moment,
    "resume": contract.resume,
    "resume-elsewhere": contract.resume_elsewhere,
    "number-types": contract.number_types,
    "tensor-lr": contract.tensor_lr,
    "maximize": contract.maximize,
    "foreach": contract.foreach,
}
