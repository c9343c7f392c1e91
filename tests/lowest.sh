#!/usr/bin/env bash
# Install the lowest version of every dependency that pyproject.toml allows, and run the quick tests and a conversion;
# then the same of a device, which has the base install alone, and check there what the first one converted.
#
#     tests/lowest.sh [FOLDER]     the environments are made in FOLDER and FOLDER-device, by default .venv-lowest;
#                                  `uv` has to be on the PATH
#
# torch comes as it is installed here or on the index, at the one version that is allowed.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv-lowest}
lowest=$(mktemp) bundle=$(mktemp -d)
trap 'rm -rf "$lowest" "$bundle"' EXIT

uv venv --quiet --python 3.11 "$venv"
uv pip install --quiet --python "$venv" torch==2.13.0
uv pip compile --quiet --resolution lowest-direct --python-version 3.11 --extra dev --extra litert \
  --no-annotate --no-header pyproject.toml | grep -vE '^(torch|triton|nvidia-.*|cuda-.*)==' >"$lowest"
uv pip install --quiet --python "$venv" --requirement "$lowest" setuptools
uv pip install --quiet --python "$venv" --no-deps --editable .

"$venv/bin/pytest" -m quick -n auto
"$venv/bin/pytest" -n auto tests/converters/test_agreement.py

"$venv/bin/stage2" convert --targets onnx,onnx-codes --out "$bundle"
uv venv --quiet --python 3.11 "$venv-device"
uv pip install --quiet --python "$venv-device" --resolution lowest-direct .
uv pip list --quiet --python "$venv-device"
"$venv-device/bin/stage2" parity "$bundle"
