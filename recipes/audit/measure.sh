#!/usr/bin/env bash
# Audit approaches on Labeled Faces in the Wild, with the default estimator.
#   bash recipes/audit/measure.sh PREPARED CACHE   PREPARED holds utkface-test; CACHE is private
set -euo pipefail
ageveil audit --faces "$AGEVEIL_DATA/lfw" --ages "prepared:$1/utkface-test" \
  --approach original,mosaic,mask,blur,permutation --cache "$2" --out recipes/audit/report --quiet
