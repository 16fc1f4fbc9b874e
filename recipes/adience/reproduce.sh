#!/usr/bin/env bash
# The paper's tables and figures on Adience.
#   bash recipes/adience/reproduce.sh ADIENCE OUT   ADIENCE holds fold_0_data.txt ...; OUT gets the report
set -euo pipefail
ageveil prepare "adience:$1" --out prepared/adience
ageveil reproduce --data prepared:prepared/adience --no-faces --models none \
  --baseline recipes/adience/baseline.toml --attention recipes/adience/attention.toml \
  --portrait examples/astronaut.jpg --portrait examples/grace_hopper.jpg --out "$2"
