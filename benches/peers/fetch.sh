#!/usr/bin/env bash
# Brings the shared libraries of OpenBLAS and oneDNN, and ONNX Runtime for Python, from PyPI into lib/. Needs Python's pip. Their licences (BSD-3-Clause, Apache-2.0, MIT) come with the packages.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m pip download --quiet --no-deps --dest "$work" scipy-openblas32==0.3.34.481.3 onednn-cpu-gomp==2023.2.0
for wheel in "$work"/*.whl; do python3 -m zipfile -e "$wheel" "$work/$(basename "$wheel" .whl)"; done
mkdir -p lib
find "$work" -name 'libscipy_openblas*.so*' -type f -exec cp {} lib/libscipy_openblas.so \;
# Of one file under several names the longest is the file itself.
cp -L "$(find "$work" -name 'libdnnl.so*' | sort | tail -n 1)" lib/libdnnl.so
python3 -m pip install --quiet --upgrade --root-user-action ignore --target lib/python onnxruntime==1.32.0 onnx==1.23.2
ls -l lib
