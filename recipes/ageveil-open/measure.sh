#!/usr/bin/env bash
# Measure the variant for commercial use on the reported sets, as recipes/ageveil/measure.sh does the default.
#   bash recipes/ageveil-open/measure.sh PREPARED   PREPARED holds utkface-train, utkface-test and fairface-val
set -euo pipefail
prepared=$1
here=recipes/ageveil-open
ageveil reproduce --data "prepared:$prepared/utkface-test" --validation "prepared:$prepared/utkface-train" \
  --baseline none --attention none --models ageveil-open --no-faces --portrait examples/astronaut.jpg \
  --portrait examples/grace_hopper.jpg --out "$here/report" --quiet
ageveil evaluate --data "prepared:$prepared/utkface-test" --approach original,mask --model ageveil-open \
  --by gender,group,race --json --quiet > "$here/by.json"
ageveil evaluate --data "prepared:$prepared/fairface-val" --approach original,mosaic,mask,blur --model ageveil-open \
  --by gender,race --json --quiet > "$here/fairface.json"
