#!/usr/bin/env bash
# Audit all approaches but DES, which leaves noise as the permutation does, with the default estimator.
#   bash recipes/audit/measure.sh PREPARED CACHE [OPTION...]   PREPARED holds utkface-test and utkface-train; CACHE
#   is private; further options are those of `ageveil audit`
set -euo pipefail
ageveil audit --faces "$AGEVEIL_DATA/lfw" --ages "prepared:$1/utkface-test" \
  --members "prepared:$1/utkface-train" \
  --approach original,mosaic,mask,blur,grid,dp-pix,veil,permutation \
  --cache "$2" --out recipes/audit/report --quiet "${@:3}"
