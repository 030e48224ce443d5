#!/bin/sh
# Runs the app with every strategy, attack and seed, one after the other, and
# prints the accuracies after the last round: table.sh FOLDER > table.csv. What
# has a result in the folder is not run again. The honest mean is FedAvg where
# the attackers have no say.
set -eu
app=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)

run() { # Row, strategy, attack, seed.
  name=$1-$3-$4
  result=$folder/$name.json
  if [ ! -s "$result" ]; then
    flwr run "$app" --stream \
      --federation-config 'num-supernodes=20 client-resources-num-cpus=1' \
      --run-config "strategy='$2' attack='$3' seed=$4 result='$result'" \
      > "$folder/$name.log" 2>&1 || true
    # flwr ends well when the app did not.
    [ -s "$result" ] || { tail "$folder/$name.log" >&2; exit 1; }
  fi
  python -c 'import json, sys
last = list(json.load(open(sys.argv[1])).values())[-1]
print(*sys.argv[2:], f"{100 * last:.1f}", sep=",")' "$result" "$1" "$3" "$4"
}

echo strategy,attack,seed,accuracy
for seed in 0 1 2; do
  run honest_mean fedavg absent "$seed"
  for strategy in fedavg krum multikrum fedmedian fedtrimmedavg \
      nnm_trimmed_mean fedaot fedaot_holdout; do
    for attack in none sign_flip label_flip; do
      run "$strategy" "$strategy" "$attack" "$seed"
    done
  done
done
