"""The environment names versions and hardware, and neither a person nor a machine."""

import getpass
import json
import platform
import subprocess

import torch

import decaylab
from decaylab.launch import environment


def test_versions_and_hardware_are_named():
    found = environment.describe("cpu", threads=1)
    assert found["torch"] == torch.__version__ and found["decaylab"] == decaylab.__version__
    assert found["python"] == platform.python_version() and found["cpu"] and found["cores"] >= 1
    assert found["threads"] == 1 and found["gpu"] == ""


def test_no_person_and_no_machine_is_named():
    text = json.dumps(environment.describe("cpu"))
    words = {platform.node(), *([getpass.getuser()] if getpass.getuser() != "root" else [])}
    assert not any(word and word in text for word in words)
    assert "/home" not in text


def test_the_commit_is_one_of_the_source():
    git = subprocess.run(["git", "rev-list", "HEAD"], capture_output=True, text=True, cwd=decaylab.__path__[0])
    found = environment.commit().removesuffix("-dirty")
    assert found in git.stdout.split() if git.returncode == 0 else found == ""
