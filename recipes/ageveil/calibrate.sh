#!/usr/bin/env bash
# Solve the buffers that are shipped with the default model, on the recipe's own validation faces.
#   bash recipes/ageveil/calibrate.sh PREPARED   PREPARED holds utkface-train and utkface-test
set -euo pipefail
prepared=$1
out=weights/research/src/ageveil_weights_research/buffers.json
# The shipped file is replaced once all are solved: a failure leaves it as it was.
part=$out.part
rm -f "$part"
trap 'rm -f "$part"' EXIT
# A smaller share can only be shown with more faces than UTKFace has just below these ages.
for asked in "18 0.01" "17 0.02" "16 0.02"; do
  read -r age share <<<"$asked"
  declare -A board=([18]="pegi 18" [17]="mpa R" [16]="pegi 16")
  read -r name mark <<<"${board[$age]}"
  for approach in mosaic mask blur veil; do
    ageveil calibrate --data "prepared:$prepared/utkface-train" --board "$name" --rating "$mark" \
      --approach "$approach" --max-false-accept "$share" --model ageveil \
      --check "prepared:$prepared/utkface-test" --out "$part" --json --quiet \
      > "recipes/ageveil/buffer-$age-$approach.json"
  done
done
mv "$part" "$out"
